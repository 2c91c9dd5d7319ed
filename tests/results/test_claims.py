"""Verdicts on the claims of the abstract: they follow the evidence, and say where it is missing."""

from __future__ import annotations

import pytest
from test_tables import result

from pipeline.data.datasets import DATASETS
from pipeline.jobs.plan import Plan, PlannedRun
from pipeline.results import claims, collect
from pipeline.runs.cluster import load_cluster
from pipeline.runs.folder import Run
from pipeline.runs.identity import run_id
from pipeline.runs.spec import DatasetRef
from pipeline.study import paper
from pipeline.study.grid import load_grid
from pipeline.study.setting import DatasetInfo


def plan_of(folder, name: str, dataset: str, seeds: int) -> Plan:
    plugin = DATASETS.find(dataset).DATASET
    info = DatasetInfo(DatasetRef(name=dataset, fingerprint="0" * 16), plugin.label_fractions, plugin.metric)
    preset = paper.preset("paper")
    entries = load_grid(name).entries([info], paper.SEEDS[:seeds], preset)
    out = Plan(name, load_cluster("local"), preset, [info], entries)
    for entry in entries:
        name = run_id(entry.spec)
        out.runs[name] = PlannedRun(Run(folder / name), entry.spec, "missing", None)
    return out


def verdict(found: list[claims.Verdict], words: str) -> claims.Verdict:
    (chosen,) = [v for v in found if words in v.claim]
    return chosen


def test_without_finished_runs_no_claim_is_decided(tmp_path):
    plan = plan_of(tmp_path, "main", "isic", 5)
    found = claims.verdicts(plan, collect.cells(plan))
    assert len(found) == 9
    untested = [v for v in found if "batch size" in v.claim or "epochs" in v.claim]
    assert {(v.ours, v.verdict) for v in untested} == {("this grid has no run for this claim", claims.UNTESTED)}
    assert {v.verdict for v in found if v not in untested} == {claims.OPEN}
    assert verdict(found, "DINO with 1% of").ours == "no seed has finished all 4 runs of this comparison yet"
    assert verdict(found, "less time").ours.startswith("no dataset has finished pretraining with CASS and with DINO")


def test_an_experiment_that_is_planned_and_not_finished_says_so(tmp_path):
    plan = plan_of(tmp_path, "batch_size", "brain_mri", 3)
    found = claims.verdicts(plan, collect.cells(plan))
    assert verdict(found, "batch size").ours == "no dataset has finished a run of every setting yet"
    assert verdict(found, "batch size").verdict == claims.OPEN
    others = [v for v in found if "batch size" not in v.claim]
    assert {(v.ours, v.verdict) for v in others} == {("this grid has no run for this claim", claims.UNTESTED)}


@pytest.mark.parametrize(
    ("gain", "seeds", "wanted"), [(0.1, 5, "holds"), (-0.1, 5, "does not hold"), (0.1, 2, "fewer")]
)
def test_a_gain_holds_where_its_interval_over_seeds_is_above_zero(tmp_path, gain, seeds, wanted):
    plan = plan_of(tmp_path, "main", "isic", seeds)
    cells = collect.cells(plan)
    for cell in cells:
        base = 0.5 + (gain if cell.row[0] == "CASS" else 0)
        cell.results = {seed: result(base + 0.001 * (seed % 3)) for seed in cell.runs}
    found = verdict(claims.verdicts(plan, cells), "DINO with 10% of")
    assert wanted in found.verdict
    assert f"{gain:+.1%} over 2 cells" in found.ours
    assert "+5.9% claimed; its own tables give +3.5%" in found.printed  # Table 6: (0.0303 + 0.0397) / 2


def test_the_claims_are_of_the_papers_cass_alone(tmp_path):
    said = []
    for name in ("main", "cass_vc"):
        plan = plan_of(tmp_path, name, "isic", 5)
        cells = collect.cells(plan)
        for cell in cells:
            base = {"CASS": 0.6, "CASS + variance–covariance": 0.9}.get(cell.row[0], 0.5)
            cell.results = {seed: result(base + 0.001 * (seed % 3)) for seed in cell.runs}
        said.append(claims.verdicts(plan, cells))
    assert said[0] == said[1]


def test_a_seed_with_a_missing_cell_is_not_counted(tmp_path):
    plan = plan_of(tmp_path, "main", "isic", 5)
    cells = collect.cells(plan)
    for cell in cells:
        cell.results = {seed: result(0.5) for seed in cell.runs}
    del cells[0].results[77]  # DINO, ResNet-50, 1 %
    found = claims.verdicts(plan, cells)
    assert "4 seeds" in verdict(found, "DINO with 1% of").ours
    assert "5 seeds" in verdict(found, "supervised training with 1% of").ours


@pytest.mark.parametrize(("moved", "wanted"), [(0.005, "holds"), (0.05, "does not hold")])
def test_robustness_is_that_of_the_better_arm(tmp_path, moved, wanted):
    plan = plan_of(tmp_path, "batch_size", "brain_mri", 3)
    cells = collect.cells(plan)
    for cell in cells:
        leading = cell.column == "CNN"
        value = (0.9 + moved * (cell.row == ("32",))) if leading else 0.5 + 0.1 * (cell.row == ("8",))
        cell.results = {seed: result(value) for seed in cell.runs}
    found = verdict(claims.verdicts(plan, cells), "batch size")
    assert found.verdict == wanted
    assert found.printed == "0.0061 (brain_mri)"  # Table 15: 0.9909 - 0.9848
    del cells[0].results[77]
    assert "fewer than 3 seeds" in verdict(claims.verdicts(plan, cells), "batch size").verdict
