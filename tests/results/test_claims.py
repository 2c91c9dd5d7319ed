"""Verdicts on the paper's claims: they follow the evidence, are no wider than it, and say where it is missing."""

from __future__ import annotations

import dataclasses

import finished
import pytest
import tiny
from scored import score_cell

from pipeline.core import files
from pipeline.data.datasets import DATASETS
from pipeline.jobs.plan import Plan, PlannedRun, make_plan
from pipeline.results import collect
from pipeline.results.claims import abstract, appendix, attention, listing
from pipeline.results.claims.verdict import FAILS, HOLDS, NO_RUN, OPEN, UNTESTED, Verdict
from pipeline.runs.cluster import load_cluster
from pipeline.runs.folder import Run
from pipeline.runs.identity import run_id
from pipeline.runs.spec import DatasetRef
from pipeline.study import paper
from pipeline.study.grid import load_grid
from pipeline.study.setting import DatasetInfo

FOUR = paper.DATASETS


def plan_of(folder, grid: str, *datasets: str, seeds: int = 5, preset: str = "paper") -> Plan:
    """A grid with all its runs, none of which is done."""
    infos = []
    for name in datasets:
        plugin = DATASETS.find(name).DATASET
        ref = DatasetRef(name=name, fingerprint=f"{name:0<16}"[:16])
        infos.append(DatasetInfo(ref, plugin.label_fractions, plugin.metric))
    entries = load_grid(grid).entries(infos, paper.SEEDS[:seeds], paper.preset(preset))
    out = Plan(grid, load_cluster("local"), paper.preset(preset), infos, entries)
    for entry in entries:
        parent = entry.spec.pretrain and run_id(entry.spec.pretrain)
        if parent and parent not in out.runs:
            out.runs[parent] = PlannedRun(Run(folder / parent), entry.spec.pretrain, "missing", None)
        out.runs[run_id(entry.spec)] = PlannedRun(Run(folder / run_id(entry.spec)), entry.spec, "missing", parent)
    return out


def pretrain_all(plan: Plan, collapsed: tuple[str, ...] = (), seconds=lambda spec: 1.0, device="a GPU") -> None:
    for planned in plan.runs.values():
        if planned.parent is None and not hasattr(planned.spec, "label_fraction"):
            planned.run.announce(planned.spec)
            made = finished.result(planned.spec, {})
            made = dataclasses.replace(made, seconds=seconds(planned.spec), device=device)
            planned.run.finish(dataclasses.replace(made, notes={"collapsed": list(collapsed)}))
            planned.state = "done"


def about(found: list[Verdict], words: str) -> Verdict:
    (chosen,) = [v for v in found if words in v.claim]
    return chosen


def slightly(seed: int) -> float:
    """What a seed adds to a score."""
    return 0.005 * (seed % 3)


def test_without_finished_runs_no_claim_is_decided(tmp_path):
    plan = plan_of(tmp_path, "main", "isic")
    found = listing.verdicts(plan, collect.cells(plan))
    assert {v.outcome for v in found} == {OPEN, UNTESTED}
    assert {v.ours for v in found if v.outcome == UNTESTED} == {NO_RUN}
    assert about(found, "batch size").outcome == about(found, "SGD trains the CNN").outcome == UNTESTED
    assert about(found, "DINO with 1% of").ours == "no seed has finished all 4 runs of this comparison yet"
    assert about(found, "less time").ours.startswith("no dataset has finished pretraining with CASS and with DINO")
    assert about(found, "not collapse").ours == "no pretraining run with CASS is done yet"


def test_every_claim_names_its_source_and_what_the_paper_prints(tmp_path):
    plan = plan_of(tmp_path, "paper", *FOUR, seeds=1)
    found = listing.verdicts(plan, collect.cells(plan))
    assert len({v.claim for v in found}) == len(found) == 9 + 1 + len(appendix.CLAIMS) + 1
    assert all(v.source and v.printed for v in found)
    assert [v.claim for v in found if v.outcome == UNTESTED] == [about(found, "same image").claim]


def test_a_users_own_grid_has_no_claims(tmp_path):
    plan = plan_of(tmp_path, "frozen", "isic", seeds=1)
    assert listing.verdicts(plan, collect.cells(plan)) == []


@pytest.mark.parametrize(
    ("fraction", "other", "wanted"),
    [
        ("1%", "DINO", "-3.7% over 2 datasets"),
        ("10%", "DINO", "+2.6% over 4 datasets"),
        ("100%", "DINO", "+5.1% over 4 datasets"),
        ("1%", "Supervised", "+2.7% over 2 datasets"),
        ("10%", "Supervised", "+5.5% over 4 datasets"),
        ("100%", "Supervised", "+9.8% over 4 datasets"),
    ],
)
def test_the_gains_of_the_papers_own_tables_are_next_to_those_of_its_abstract(tmp_path, fraction, other, wanted):
    plan = plan_of(tmp_path, "main", "isic", seeds=1)
    rival = {"Supervised": "supervised training"}.get(other, other)
    (found,) = [
        v for v in abstract.verdicts(plan, collect.cells(plan)) if f"over {rival} with {fraction} of" in v.claim
    ]
    assert found.printed.endswith(f"claimed; its own tables give {wanted}")


def score_main(plan: Plan, gain: float, seeds: int = 5) -> list[collect.Cell]:
    """The cells of the main experiment at 10 % of the labels, CASS better by a gain."""
    cells = collect.cells(plan)
    for cell in cells:
        base = 0.6 + (gain if cell.row[0] == "CASS" else 0)
        if cell.column == "10%":
            shift = {"CASS": 0, "DINO": 1}.get(cell.row[0], 2)
            score_cell(cell, {seed: base + slightly(seed + shift) for seed in paper.SEEDS[:seeds]})
    return cells


@pytest.mark.parametrize(
    ("gain", "outcome", "said"),
    [
        (0.1, HOLDS, "on this grid only: holds; not the paper's setting: 1 of 4 datasets (not autoimmune, dermofit"),
        (-0.1, FAILS, "on this grid only: does not hold; not the paper's setting: 1 of 4 datasets"),
        (0.005, OPEN, "not enough evidence (the interval contains zero)"),
    ],
)
def test_a_gain_on_one_dataset_is_a_verdict_on_this_grid(tmp_path, gain, outcome, said):
    plan = plan_of(tmp_path, "main", "isic")
    pretrain_all(plan)
    found = about(listing.verdicts(plan, score_main(plan, gain)), "DINO with 10% of")
    assert (found.outcome, found.verdict.startswith(said)) == (outcome, True)
    assert "over 2 cells, 95 % interval" in found.ours and "5 seeds and 400 test images would show" in found.ours


def test_a_gain_in_the_papers_setting_is_a_verdict_on_the_abstract(tmp_path):
    plan = plan_of(tmp_path, "main", *FOUR)
    pretrain_all(plan)
    cells = score_main(plan, 0.1)
    found = about(listing.verdicts(plan, cells), "DINO with 10% of")
    assert (found.verdict, found.kind) == ("holds", "holds")
    pretrain_all(plan, collapsed=("cnn",))
    found = about(listing.verdicts(plan, cells), "DINO with 10% of")
    assert found.kind == "grid" and found.lacking == ("60 of 60 pretraining runs collapsed",)


def test_seeds_and_cells_that_lack_are_said(tmp_path):
    plan = plan_of(tmp_path, "main", *FOUR)
    pretrain_all(plan)
    cells = score_main(plan, 0.1, seeds=4)
    found = about(listing.verdicts(plan, cells), "DINO with 10% of")
    assert found.lacking == ("4 seeds, not 5", "16 cells not complete") and "; 4 seeds and 1,600" in found.ours
    two = plan_of(tmp_path / "two", "main", "isic", seeds=2)
    found = about(listing.verdicts(two, score_main(two, 0.1, seeds=2)), "DINO with 10% of")
    assert found.verdict == "not enough evidence (fewer than 3 seeds)"


def test_another_scale_and_preset_are_said(tmp_path):
    small = plan_of(tmp_path, "small", "isic")
    found = about(listing.verdicts(small, score_main(small, 0.1)), "supervised training with 10% of")
    assert found.lacking[:4] == (
        "images of 64 pixels, not 384",
        "smaller networks",
        "other start weights",
        "3 epochs of pretraining, not 100",
    )
    sound = plan_of(tmp_path / "sound", "main", *FOUR, preset="sound")
    found = about(listing.verdicts(sound, score_main(sound, 0.1)), "supervised training with 10% of")
    assert found.lacking == ("preset sound",)


def test_the_claims_are_of_the_papers_cass_alone(tmp_path):
    said = []
    for name in ("main", "cass_vc"):
        plan = plan_of(tmp_path / name, name, "isic", seeds=3)
        cells = collect.cells(plan)
        for cell in cells:
            base = {"CASS": 0.6, "CASS + variance–covariance": 0.9}.get(cell.row[0], 0.5)
            score_cell(cell, {seed: base + slightly(seed) for seed in cell.runs}, images=40)
        said.append(listing.verdicts(plan, cells))
    assert said[0] == said[1]


def times_of(plan: Plan, device: str = "a GPU", spread: float = 0.01) -> Verdict:
    def seconds(spec):
        return (1.0 if spec.method.name == "cass" else 2.0) * (1 + spread * (spec.seed % 3))

    pretrain_all(plan, seconds=seconds, device=device)
    cells = collect.cells(plan)
    for cell in cells:
        cell.results = {seed: finished.result(cell.spec, {}) for seed in cell.runs}
    return about(listing.verdicts(plan, cells), "less time")


def test_time_saved_needs_one_device_and_spread_and_says_its_grid(tmp_path):
    plan = plan_of(tmp_path, "main", "isic", seeds=3)
    assert times_of(plan).outcome == OPEN  # every seed saves the same: 75 %
    first = next(p for p in plan.runs.values() if p.parent is None and "cass-" in p.run.id and p.state == "done")
    slow = dataclasses.replace(first.run.result(), seconds=1.3)
    first.run.finish(slow)
    cells = collect.cells(plan)
    for cell in cells:
        cell.results = {seed: finished.result(cell.spec, {}) for seed in cell.runs}
    found = about(listing.verdicts(plan, cells), "less time")
    assert found.kind == "grid" and "% less, mean of isic, 3 seeds, 95 % interval" in found.ours
    assert found.lacking == ("1 of 4 datasets (not autoimmune, dermofit, brain_mri)", "3 seeds, not 5")
    first.run.finish(dataclasses.replace(slow, device="another GPU"))
    found = about(listing.verdicts(plan, cells), "less time")
    assert found.verdict == "not enough evidence (the runs used different devices or precisions)"


@pytest.mark.parametrize(
    ("moved", "outcome"), [(0.0, HOLDS), (0.1, FAILS), (0.012, OPEN)], ids=["steady", "moved", "near the limit"]
)
def test_robustness_is_that_of_the_better_arm_with_its_whole_interval(tmp_path, moved, outcome):
    plan = plan_of(tmp_path, "batch_size", "brain_mri")
    pretrain_all(plan)
    cells = collect.cells(plan)
    for cell in cells:
        base = 0.8 + moved * (cell.row == ("32",)) if cell.column == "CNN" else 0.5 + 0.1 * (cell.row == ("8",))
        score_cell(
            cell, {seed: base + 0.001 * (seed % (2 + int(cell.row[0]) // 8)) for seed in cell.runs}, images=20000
        )
    found = about(listing.verdicts(plan, cells), "batch size")
    assert found.outcome == outcome
    assert found.printed == "0.0050 (autoimmune), 0.0061 (brain_mri)"  # Tables 7, 15: 0.8894 − 0.8844, 0.9909 − 0.9848
    assert "brain_mri, 8 and 16: " in found.ours and found.lacking[0] == "1 of 2 datasets (not autoimmune)"


def test_ablations_are_judged_by_the_tables_that_they_repeat(tmp_path):
    plan = plan_of(tmp_path, "paper", "autoimmune", "brain_mri")
    pretrain_all(plan)
    cells = [c for c in collect.cells(plan) if c.experiment in ("transformer", "transformer_supervised", "two_cnns")]
    for cell in cells:
        low = 0.1 * ("ViT L/16" in cell.key or "DenseNet" in cell.key) + 0.1 * cell.experiment.endswith("supervised")
        number = sum(map(ord, cell.key)) + len(cell.experiment)
        score_cell(cell, {seed: 0.8 - low + slightly(seed + number) for seed in cell.runs})
    found = listing.verdicts(plan, cells)
    large = about(found, "below ViT B/16 with CASS")
    assert large.verdict == "holds" and large.printed == "-3.6% (autoimmune), -3.8% (brain_mri)"
    assert about(found, "below ViT B/16 in supervised").verdict == "holds"
    gain = about(found, "Transformers gain over supervised")
    assert gain.verdict == "holds" and gain.printed == "+4.8% (autoimmune)" and "over 2 cells" in gain.ours
    assert about(found, "two CNNs").verdict == "holds"
    assert about(found, "two CNNs").printed == "ResNet-50: -1.7% (brain_mri); DenseNet-161: -0.7% (brain_mri)"
    assert about(found, "Random start").ours == about(found, "CNNs gain over").ours == NO_RUN


def test_collapse_is_what_the_monitor_says_and_good_scores_are_no_evidence(tmp_path):
    plan = plan_of(tmp_path, "main", "isic")
    pretrain_all(plan, collapsed=("cnn", "transformer"))
    found = about(listing.verdicts(plan, score_main(plan, 0.0)), "not collapse")
    assert found.outcome == FAILS and found.ours.startswith("5 of 5 pretraining runs collapsed")
    assert "collapsed arms fine-tune to 0.6" in found.ours and "no evidence against collapse" in found.ours
    assert found.source == "Section 2; B and C" and "not measured" in found.printed
    pretrain_all(plan)
    assert about(listing.verdicts(plan, collect.cells(plan)), "not collapse").outcome == HOLDS


@pytest.mark.parametrize(
    ("control", "supervised", "outcome", "why"),
    [
        (0.6, 0.6, HOLDS, ""),
        (0.7, 0.6, FAILS, "CASS does not beat Batch norm only: its gain is not agreement"),
        (0.7, 0.7, OPEN, "CASS does not beat Batch norm only: that its gain is agreement is not shown"),
    ],
)
def test_a_gain_that_a_control_has_too_is_not_agreement(tmp_path, control, supervised, outcome, why):
    plan = plan_of(tmp_path, "controls", "brain_mri", seeds=5)
    cells = [cell for cell in collect.cells(plan) if cell.column == "10%"]
    base = {"cass": 0.7, "cass_shuffled": 0.6, "bn_only": control, "supervised": supervised}
    for cell in cells:
        shift = len(cell.row[0])
        score_cell(cell, {seed: base[cell.method] + slightly(seed + shift) for seed in cell.runs}, images=2000)
    found = about(listing.verdicts(plan, cells), "agreement on the same image")
    assert (found.outcome, found.why) == (outcome, why)
    assert "images of 64 pixels, not 384" in found.lacking


def test_attention_is_numbers_of_one_run_each(tmp_path):
    plan = plan_of(tmp_path, "main", "isic", seeds=1)
    cells = collect.cells(plan)
    spread, centre = attention.verdicts(cells, tmp_path)
    assert spread.outcome == centre.outcome == OPEN and "draws the maps" in spread.ours
    measured = {
        "cass": {"entropy": [0.9, 0.92, 0.94], "centre": [0.3, 0.3, 0.3]},
        "supervised": {"entropy": [0.8, 0.81, 0.82], "centre": [0.2, 0.2, 0.2]},
    }
    files.write_json(tmp_path / "figures.json", {"figures": [{"dataset": "isic", "measured": measured}, {}]})
    spread, centre = attention.verdicts(cells, tmp_path)
    assert spread.ours == "isic: 0.920, supervised 0.810 (+0.110, 95 % interval over 3 images +0.085 to +0.135)"
    assert centre.ours == "isic: 0.300, supervised 0.200 (+0.100)"
    assert spread.verdict == "not enough evidence (one run of each: networks are compared, not methods)"
    assert [v.outcome for v in attention.verdicts([c for c in cells if c.method == "cass"], tmp_path)] == [UNTESTED] * 2


# --- A grid that shows nothing, from its run folders -----------------------------------------------------------------


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return tiny.make_shards(tmp_path_factory.mktemp("claims"))


def verdicts_of(folder, shards, more_in_one_seed: bool) -> list[Verdict]:
    def wrong(spec):
        errors = 4 - (spec.pretrain is not None and spec.pretrain.method.name == "cass")
        errors -= more_in_one_seed and errors == 3 and spec.seed == 77
        return range(errors)

    def seconds(spec):
        return (1.0 if spec.method.name == "cass" else 2.0) + 0.01 * ((spec.seed + len(spec.arms)) % 3)

    grid = finished.make_main_grid(
        folder,
        shards,
        wrong=wrong,
        seeds=5 if more_in_one_seed else 3,
        collapsed=("cnn", "transformer"),
        seconds=seconds,
    )
    plan = make_plan(str(grid), tiny.make_cluster(folder, shards=str(shards.folder.parent)))
    return listing.verdicts(plan, collect.cells(plan))


@pytest.mark.parametrize("more_in_one_seed", [False, True], ids=["in every run", "and by two in one seed"])
def test_one_test_image_better_in_every_cell_with_collapsed_arms_is_no_gain(tmp_path, shards, more_in_one_seed):
    """On one dataset of a few test images at a small scale: before, all gains and the time printed "holds"."""
    found = verdicts_of(tmp_path, shards, more_in_one_seed)
    gains = [v for v in found if v.claim.startswith("CASS gains over")]
    assert len(gains) == 6 and all("over 2 cells" in v.ours for v in gains)
    why = "the interval contains zero" if more_in_one_seed else "all seeds differ by the same, so they show no spread"
    assert {v.verdict for v in gains} == {f"not enough evidence ({why})"}
    time = about(found, "less time")
    assert time.verdict.startswith("on this grid only: holds; not the paper's setting: images of 32 pixels, not 384;")
    assert time.kind == "grid" and "pretraining runs collapsed" in time.verdict
    assert about(found, "not collapse").outcome == FAILS
    assert not any(v.verdict == "holds" for v in found)
    assert about(found, "same image").outcome == OPEN
