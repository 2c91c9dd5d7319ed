"""The overview of a grid's tables: the paper's numbers, the sizes that a report has, and the runs that tables share."""

from __future__ import annotations

from pathlib import Path

import pytest
from infos import dataset_infos

from pipeline.jobs.plan import Plan, make_plan
from pipeline.results import collect, tables
from pipeline.runs.cluster import Cluster
from pipeline.study import paper
from pipeline.study.experiments import entries_of, paper_runs, plain_entries
from pipeline.study.grid import load_grid
from pipeline.study.names import known_grids
from pipeline.study.overview import HEADER, TABLE_1, TABLE_2, table_overview


def overview(name: str, datasets: list[str] | None = None, seeds: tuple[int, ...] = paper.SEEDS):
    grid = load_grid(name)
    infos, preset = dataset_infos(datasets or grid.datasets), paper.preset("paper")
    entries = grid.entries(infos, list(seeds), preset)
    return table_overview(entries, paper_runs(entries, infos, preset))


def plan_of(name: str, folder: Path) -> Plan:
    """The plan of a grid with one seed, none of whose runs has started."""
    site = Cluster(shards=str(folder / "shards"), runs=str(folder / "runs"))
    return make_plan(name, site, seeds=1)


def test_the_grid_of_the_paper_makes_tables_1_to_21_in_order() -> None:
    assert [table.number for table in overview("paper")] == list(range(1, 22))


def test_the_main_grid_makes_tables_1_to_6() -> None:
    assert [table.number for table in overview("main")] == list(range(1, 7))


@pytest.mark.parametrize("name", known_grids())
def test_numbers_and_sizes_are_those_of_the_report(name: str, tmp_path: Path) -> None:
    plan = plan_of(name, tmp_path)
    expected = []
    for table in tables.tables(plan, collect.cells(plan)):
        heads = table.header[table.labels :]
        if table.number is None and heads[0] == "ours":  # the differences between techniques are no table of runs
            continue
        ours = [head for head in heads if not head.endswith("paper")]
        expected.append((table.number, table.caption.split(": ")[-1].split(", test ")[0], len(table.rows), len(ours)))
    of_paper = paper_runs(plan.entries, plan.datasets, plan.preset)
    found = [(table.number, table.title, table.rows, table.columns) for table in table_overview(plan.entries, of_paper)]
    assert found == expected


def test_tables_1_and_2_are_made_of_the_runs_of_main() -> None:
    first, second, *others = overview("main")
    assert (first.title, first.finetunes, first.pretrains, first.shared) == (TABLE_1, 300, 60, 360)
    assert (second.title, second.finetunes, second.pretrains, second.shared) == (TABLE_2, 0, 60, 60)
    assert sum(table.finetunes for table in others) == 300 and sum(table.pretrains for table in others) == 60
    assert {table.shared for table in others} == {0}


def test_table_2_has_only_the_methods_whose_hours_the_paper_prints() -> None:
    first, second = overview("dino_fb")[:2]
    assert (first.finetunes, first.pretrains) == (400, 100)
    assert (second.finetunes, second.pretrains) == (0, 60)


def test_a_run_that_several_tables_need_is_shared() -> None:
    tables_of = {table.number: table for table in overview("paper", seeds=(77,))}
    seven = tables_of[7]  # batches of 8, 16 and 32; that of 16 is main's
    assert (seven.finetunes, seven.pretrains, seven.shared) == (6, 3, 3)
    assert tables_of[4].shared == 0  # the Dermofit images are in no other table
    assert (tables_of[12].finetunes, tables_of[12].pretrains, tables_of[12].shared) == (3, 0, 2)


def test_an_experiment_on_another_dataset_has_no_number_and_comes_last() -> None:
    preset, infos = paper.preset("paper"), dataset_infos(["isic", "autoimmune"])
    entries = [entry for info in infos for entry in entries_of("epochs")([info], [77], preset)]
    found = table_overview(entries, paper_runs(entries, infos, preset))
    assert [(table.number, table.dataset) for table in found] == [(8, "autoimmune"), (None, "isic")]
    assert found[1].texts() == ("", "isic", "epochs of pretraining", "4 × 2", "8", "4", "0")
    assert len(HEADER) == len(found[1].texts())


def test_a_plain_list_of_runs_makes_one_table_for_each_dataset() -> None:
    main = load_grid("main").entries(dataset_infos(["isic", "brain_mri"]), [77], paper.preset("paper"))
    found = table_overview(plain_entries([entry.spec for entry in main]), ())
    assert [(table.number, table.dataset, table.rows, table.columns) for table in found] == [
        (None, "isic", 6, 3),
        (None, "brain_mri", 6, 3),
    ]
