"""A grid with two networks of one kind: every score, difference and time is of its own network."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import finished
import pytest

from pipeline.jobs.plan import Plan, PlannedRun
from pipeline.results import collect, differences, methods_section, tables, times
from pipeline.results.claims import abstract, controls
from pipeline.results.ensembles import ensembles
from pipeline.results.figures.series import groups
from pipeline.runs.cluster import load_cluster
from pipeline.runs.folder import Run
from pipeline.runs.identity import run_id
from pipeline.runs.result import PUBLISHED_BY
from pipeline.runs.spec import DatasetRef, PretrainSpec, Spec
from pipeline.study import paper
from pipeline.study.grid import load_grid
from pipeline.study.setting import DatasetInfo

GRID = """
datasets = ["mine"]
methods = ["dino", "cass", "cass_shuffled", "supervised"]
image_size = 64
[backbones]
cnn = ["resnet50.a1_in1k", "resnet18.a1_in1k"]
"""
SCORES = {
    ("DINO", "ResNet-50"): 0.1,
    ("DINO", "resnet18"): 0.2,
    ("CASS", "ResNet-50"): 0.4,
    ("CASS", "resnet18"): 0.6,
    ("CASS, shuffled", "ResNet-50"): 0.3,
    ("CASS, shuffled", "resnet18"): 0.35,
    ("Supervised", "ResNet-50"): 0.05,
    ("Supervised", "resnet18"): 0.15,
}
SECONDS = {"resnet50.a1_in1k": 3000.0, "resnet18.a1_in1k": 1000.0, "both": 2000.0}


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    """All runs of two seeds done, each network of each technique with a score of its own."""
    (tmp_path / "mine.toml").write_text(GRID)
    info = DatasetInfo(DatasetRef(name="mine", fingerprint="0" * 16), (1.0,), "balanced_accuracy")
    preset = paper.preset("paper")
    entries, _ = load_grid(str(tmp_path / "mine.toml")).runs([info], [77, 78], preset)
    out = Plan("mine", load_cluster("local"), preset, [info], entries)

    def add(spec: Spec, score: float, seconds: float, parent: str | None = None) -> str:
        run = Run(tmp_path / run_id(spec))
        if run.id not in out.runs:
            run.announce(spec)
            metrics = {name: score for name in collect.METRICS}
            run.finish(dataclasses.replace(finished.result(spec, metrics), seconds=seconds))
            out.runs[run.id] = PlannedRun(run, spec, "done", parent)
        return run.id

    for entry in entries:
        parent = entry.spec.pretrain
        if parent is not None:
            seconds = SECONDS[parent.arms[0].backbone if len(parent.arms) == 1 else "both"]
        add(entry.spec, SCORES[entry.row], 1.0, parent and add(parent, 0.0, seconds))  # type: ignore[index]
    return out


def test_every_network_has_a_column_of_its_own(plan: Plan) -> None:
    cells = collect.cells(plan)
    table = tables.table_1([*cells, *ensembles(cells)])
    assert table.header[2:4] == ("100% ResNet-50", "100% resnet18")
    shown = {(row[1], head): row[table.header.index(f"100% {head}")] for row in table.rows for _, head in SCORES}
    assert shown == {key: f"{score:.4f}" for key, score in SCORES.items()}
    for (row, column), cell in table.cells.items():
        assert table.header[column] == f"100% {cell.row[1]}" and table.rows[row][1] == cell.row[0]


def test_techniques_are_compared_on_the_same_network(plan: Plan) -> None:
    cells = collect.cells(plan)
    found = {(each.name, each.cell.row[1]): each.difference for each in differences.comparisons(cells)}
    assert len(found) == 2 * 3
    for (name, network), difference in found.items():
        ours, theirs = name.split(" − ")
        assert difference is not None
        assert difference.mean == pytest.approx(SCORES[ours, network] - SCORES[theirs, network])
    pairs = controls._pairs(cells, "cass", "supervised")
    assert [ours.row[1] for ours, _ in pairs] == [theirs.row[1] for _, theirs in pairs] == ["ResNet-50", "resnet18"]
    gain = next(each for each in abstract.verdicts(plan, cells) if "supervised training with 100%" in each.claim)
    assert "40.0" in gain.ours  # 0.35 on ResNet-50 and 0.45 on resnet18


def test_times_of_dino_are_told_apart_and_summed(plan: Plan) -> None:
    cells = collect.cells(plan)
    found = times.pretraining_seconds(plan, cells)
    assert {key[1:]: set(by_seed.values()) for key, by_seed in found.items() if key[1] != "cass_shuffled"} == {
        ("dino", "resnet50.a1_in1k"): {3000.0},
        ("dino", "resnet18.a1_in1k"): {1000.0},
        ("cass", ""): {2000.0},
    }
    table = tables.table_2(plan, cells)
    assert table.header == ("dataset", "DINO ResNet-50", "DINO resnet18", "DINO both", "CASS", "saved")
    assert table.rows == [("mine", "50 min", "17 min", "67 min", "33 min", "50%")]
    assert abstract._savings(plan, cells) == {"mine": {77: 0.5, 78: 0.5}}


def test_both_networks_of_each_technique_are_combined(plan: Plan) -> None:
    found = ensembles(collect.cells(plan))
    assert {cell.row for cell in found} == {(technique, "ResNet-50 + resnet18") for technique, _ in SCORES}


def test_a_figure_has_every_technique_with_its_network(plan: Plan) -> None:
    found = {(group.title, group.arm): [each.title for each in group.series] for group in groups(collect.cells(plan))}
    techniques = {technique for technique, _ in SCORES}
    assert {key: set(titles) for key, titles in found.items()} == {
        ("ResNet-50", "cnn"): techniques,
        ("resnet18", "cnn"): techniques,
    }


def test_one_network_of_each_kind_keeps_the_papers_columns(plan: Plan) -> None:
    cells = [cell for cell in collect.cells(plan) if cell.row[1] == "ResNet-50"]
    assert tables.table_1(cells).header[2:] == ("100% cnn", "100% transformer")
    assert tables.table_2(plan, cells).header[1:4] == ("DINO CNN", "DINO Transformer", "DINO both")


def test_the_time_of_a_published_run_is_counted_unless_its_longer_run_is_there(plan: Plan) -> None:
    longer = next(planned for planned in plan.runs.values() if isinstance(planned.spec, PretrainSpec))
    result = longer.run.result()
    there = dataclasses.replace(result, notes={**result.notes, PUBLISHED_BY: longer.run.id})
    elsewhere = dataclasses.replace(result, notes={**result.notes, PUBLISHED_BY: "mine-dino-s77-000000000000"})
    assert times.compute_seconds(plan, [result, there, elsewhere]) == 2 * result.seconds
    assert "1 h 40 min of training" in methods_section._software(plan, [result, there, elsewhere])
