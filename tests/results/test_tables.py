"""Tables: means and deviations by hand, the paper's values beside them, marks and every format."""

from __future__ import annotations

import csv
import dataclasses
import io

import pytest

from pipeline import lookup, paper
from pipeline.cluster import load_cluster
from pipeline.jobs.plan import Item, Plan
from pipeline.results import collect, tables
from pipeline.runs import Result, Run
from pipeline.spec import DatasetRef, FinetuneSpec, run_id


def result(value: float, *, device: str = "card") -> Result:
    metrics = {name: value for name in collect.METRICS} | {"majority": {"balanced_accuracy": 0.125}}
    return Result(
        metrics=metrics,
        seconds=1.0,
        images_per_second=1.0,
        epochs=1,
        best_epoch=0,
        device=device,
        precision="float32",
        threads=1,
        code="c",
        versions={},
    )


@pytest.fixture
def plan(tmp_path):
    """The main grid on ISIC with two seeds, CASS ViT-B/16 with all labels finished."""
    leaf = lookup.find("datasets", "isic").DATASET
    card = paper.Card(DatasetRef(name="isic", fingerprint="0" * 16), leaf.label_fractions, leaf.metric)
    preset = paper.preset("paper")
    wanted = lookup.find("grids", "main").grid([card], [77, 78], preset)
    out = Plan("main", load_cluster("local"), preset, [card], wanted)
    for spec in wanted:
        run = Run(tmp_path / run_id(spec))
        out.items[run.id] = Item(run=run, spec=spec, state="missing", parent=None)
    for spec, value in zip([spec for spec in wanted if is_chosen(spec)], (0.5, 0.6), strict=True):
        item = out.items[run_id(spec)]
        item.run.announce(spec)
        item.run.finish(result(value))
        item.state = "done"
    return out


def is_chosen(spec: FinetuneSpec) -> bool:
    return (
        spec.pretrain is not None
        and spec.pretrain.method.name == "cass"
        and spec.arm == "transformer"
        and spec.label_fraction == 1.0
    )


def chosen(cells: list[collect.Cell]) -> collect.Cell:
    key = ("cass", "transformer", 1.0)
    return next(cell for cell in cells if (cell.method, cell.arm, cell.label_fraction) == key)


def test_a_cell_is_the_mean_and_sample_deviation_over_seeds_beside_the_papers_value(plan):
    cells = collect.cells(plan)
    assert len(cells) == 2 * 3 * 3
    cell = chosen(cells)
    assert tables.ours(cell) == "0.5500 ± 0.0707 (2)"
    assert tables.printed(cell) == "0.5819 ± 0.0015"
    assert cell.metric == "balanced_accuracy"
    text = tables.as_text(tables.tables(cells))
    assert "0.5500 ± 0.0707 (2)" in text and "– (0 of 2)" in text and "0.3976" not in text
    assert "scores 0.1250" in text


def test_one_seed_has_no_deviation_and_says_how_many_are_missing(plan):
    cell = chosen(collect.cells(plan))
    cell.results.pop()
    assert tables.ours(cell) == "0.5000 (1 of 2)"


def test_a_cell_that_mixes_devices_is_marked_and_explained(plan):
    cell = chosen(collect.cells(plan))
    cell.results[1] = dataclasses.replace(cell.results[1], device="another card")
    assert tables.ours(cell).endswith("(2)*")
    assert any("different devices" in note for note in tables.tables([cell])[0].notes)


def test_two_recipes_never_share_a_cell(plan):
    spec = next(spec for spec in plan.wanted if is_chosen(spec))
    other = dataclasses.replace(spec, epochs=7)
    plan.wanted.append(other)
    plan.items[run_id(other)] = Item(
        run=Run(plan.items[run_id(spec)].run.folder), spec=other, state="missing", parent=None
    )
    cells = collect.cells(plan)
    same = [c for c in cells if (c.method, c.arm, c.label_fraction) == ("cass", "transformer", 1.0)]
    assert sorted(cell.wanted for cell in same) == [1, 2]
    rows = [row for row in tables.tables(cells)[0].rows if row[0] == "CASS" and "(transformer)" in row[1]]
    assert len({row[1] for row in rows}) == 2


def test_the_sound_presets_other_metric_has_no_printed_value_beside_it(plan):
    plan.preset = paper.preset("sound")
    cell = chosen(collect.cells(plan))
    assert cell.metric == "f1_macro"
    assert cell.printed is None


def test_csv_holds_every_metric_with_its_raw_values(plan):
    rows = list(csv.DictReader(io.StringIO(tables.as_csv([chosen(collect.cells(plan))]))))
    assert {row["metric"] for row in rows} == set(collect.METRICS)
    shown = next(row for row in rows if row["in_table"] == "1")
    assert sorted(shown["values"].split()) == ["0.5", "0.6"]
    assert (shown["n"], shown["wanted"], shown["paper_table"], shown["paper_value"]) == ("2", "2", "6", "0.5819")


def test_latex_and_markdown_are_well_formed(plan):
    made = tables.tables(collect.cells(plan))
    latex = tables.as_latex(made)
    assert latex.count(r"\begin{tabular}") == latex.count(r"\end{tabular}") == 1
    body = latex.split(r"\toprule")[1].split(r"\bottomrule")[0].replace(r"\&", "")
    assert {line.count("&") for line in body.splitlines() if line.strip().endswith(r"\\")} == {7}
    assert "%" not in latex.replace(r"\%", "")
    lines = [line for line in tables.as_markdown(made).splitlines() if line.startswith("|")]
    assert {line.count("|") for line in lines} == {9}


def test_the_printed_values_are_the_papers_tables_three_to_six():
    printed = collect.printed_results()
    assert len(printed) == 12 + 12 + 18 + 18
    assert printed["brain_mri", "cass", "cnn", 1.0].value == 0.9909
    assert printed["autoimmune", "cass", "transformer", 1.0].value == 0.8894
    assert printed["dermofit", "supervised", "cnn", 0.1].value == 0.33
    # Table 1 repeats them: the gain of CASS over DINO with all labels on ISIC, both arms
    gains = [
        printed["isic", "cass", arm, 1.0].value - printed["isic", "dino", arm, 1.0].value
        for arm in ("cnn", "transformer")
    ]
    assert gains == pytest.approx([0.05, 0.0411])
