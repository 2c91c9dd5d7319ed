"""Differences over seeds and test images together: by brute force with the same draws, and on equal methods."""

from __future__ import annotations

from types import SimpleNamespace

import equal_methods
import numpy as np
import pytest
from scipy import stats
from scored import score_cell

from pipeline.core.seeds import derive
from pipeline.learn import metrics
from pipeline.results import bootstrap
from pipeline.results.collect import Cell, predictions_of
from pipeline.results.differences import Difference, difference, estimate_both
from pipeline.results.statistics import estimate
from pipeline.runs.folder import Run
from pipeline.runs.identity import run_id
from pipeline.runs.spec import DatasetRef
from pipeline.study import paper, recipes

SEEDS = (77, 78, 79, 80, 81)


def make_cells(folder, count: int, seeds=SEEDS, metric: str = "balanced_accuracy") -> list[Cell]:
    """Cells of one dataset whose runs are not finished."""
    out = []
    for number in range(count):
        ref = DatasetRef(name="mine", fingerprint="0" * 16)
        specs = [
            recipes.finetune(
                ref, paper.RESNET50, preset=paper.preset("paper"), seed=seed, label_fraction=(number + 1) / 8
            )
            for seed in seeds
        ]
        runs = {spec.seed: Run(folder / run_id(spec)) for spec in specs}
        out.append(Cell("main", "mine", (str(number),), "100%", metric, specs[0], runs))
    return out


def differing(folder, gains, *, images=400, groups=None) -> Difference:
    """The difference of two cells of which the first is better by these gains, seed by seed."""
    ours, theirs = make_cells(folder, 2, SEEDS[: len(gains)])
    score_cell(theirs, dict.fromkeys(theirs.runs, 0.7), images=images)
    score_cell(ours, {seed: 0.7 + gain for seed, gain in zip(ours.runs, gains, strict=True)}, images=images)
    if groups:
        ours.groups = theirs.groups = SimpleNamespace(by_key=groups)
    return difference([(ours, theirs)])


def test_the_error_of_both_is_that_of_brute_force_with_the_same_draws(tmp_path):
    cells = make_cells(tmp_path, 4)
    for number, cell in enumerate(cells):
        score_cell(cell, {seed: 0.6 + 0.02 * number + 0.01 * (seed % 3) for seed in SEEDS}, images=40)
    pairs = [(cells[0], cells[1]), (cells[2], cells[3])]
    found = difference(pairs)
    stored = [[predictions_of(cell.runs[seed]) for seed in SEEDS] for cell in cells]
    images = bootstrap.test_images("mine", stored[0][0].keys, {})
    weights = np.concatenate(list(bootstrap._weights(images))).astype(int)
    picked = np.random.default_rng(derive("seeds", 5)).multinomial(4, np.full(5, 0.2), size=len(weights))

    def score(cell: int, seed: int, rows: np.ndarray) -> float:
        one = stored[cell][seed]
        found = metrics.score(one.targets[rows], one.scores[rows], one.classes, "multi-class")
        return found["balanced_accuracy"]

    by_hand = []
    for row, seeds in zip(weights[:4], picked[:4], strict=True):
        rows = np.repeat(np.arange(40), row)
        of_seeds = [
            np.mean([score(2 * p, s, rows) - score(2 * p + 1, s, rows) for p in (0, 1)])
            for s in np.repeat(np.arange(5), seeds)
        ]
        by_hand.append(np.mean(of_seeds))
    gains = np.array([np.mean([a.scores("f1_micro")[s] - b.scores("f1_micro")[s] for a, b in pairs]) for s in SEEDS])
    drawn = [[bootstrap.drawn(a).scores[s] - bootstrap.drawn(b).scores[s] for s in SEEDS] for a, b in pairs]
    on_draws = np.mean(drawn, axis=0).T
    np.testing.assert_allclose((on_draws * picked / 4).sum(axis=1)[:4], by_hand, atol=1e-12)
    error = (on_draws * picked / 4).sum(axis=1).std(ddof=1)
    assert found.over_both.error == pytest.approx(error) and found.mean == pytest.approx(gains.mean())
    wanted = stats.t.interval(0.95, 4, loc=gains.mean(), scale=stats.sem(gains))
    assert found.over_seeds.interval == pytest.approx(wanted)
    assert (found.cells, found.seeds, found.images, found.units) == (2, 5, 40, 40)


def test_the_degrees_of_freedom_are_between_those_of_the_seeds_and_of_the_images():
    rng = np.random.default_rng(0)
    gains = rng.normal(0, 0.05, 5)
    alike = gains + rng.normal(0, 1e-4, (1000, 1))  # images hardly matter
    assert estimate_both(gains, alike, 500).freedom == pytest.approx(4, abs=0.5)
    assert estimate_both(gains, alike, 500).error == pytest.approx(estimate(gains.tolist()).error, rel=0.08)
    apart = rng.normal(0, 1, (1000, 1)) + 1e-3 * gains  # seeds hardly matter
    assert estimate_both(1e-3 * gains, apart, 500).freedom == pytest.approx(499, rel=0.01)
    assert estimate_both(np.zeros(5), np.zeros((1000, 5)), 500) is None


def test_one_image_better_in_every_seed_is_no_difference(tmp_path):
    found = differing(tmp_path, [0.05] * 5, images=40)  # an image of each class, so two of 40
    assert found.mean == pytest.approx(0.05) and found.over_seeds is None and found.range is None
    assert found.undecided == "all seeds differ by the same, so they show no spread"


def test_what_seeds_alone_would_call_a_difference_the_images_may_not(tmp_path):
    gains = [0.05, 0.05, 0.1, 0.05, 0.05]
    few = differing(tmp_path / "few", gains, images=40)
    assert few.over_seeds.interval[0] > 0 > few.over_both.interval[0]
    assert few.range[0] < 0 and few.p == few.over_both.p > 0.05
    many = differing(tmp_path / "many", gains, images=2000)
    assert many.range[0] > 0 and many.p < 0.05 and many.detectable < few.detectable
    assert many.evidence == "5 seeds and 2,000 test images"


def test_images_of_few_patients_show_less_than_images_of_many(tmp_path):
    gains = [0.05, 0.06, 0.07, 0.06, 0.05]
    alone = differing(tmp_path / "alone", gains, images=400)
    groups = {str(i): f"patient {i % 8}" for i in range(400)}
    grouped = differing(tmp_path / "grouped", gains, images=400, groups=groups)
    assert grouped.units == 8 and grouped.evidence == "5 seeds and 400 test images in 8 groups"
    assert grouped.over_both.freedom < alone.over_both.freedom


def test_too_few_seeds_and_missing_predictions_are_said(tmp_path):
    assert differing(tmp_path / "two", [0.1, 0.2]).undecided == "fewer than 3 seeds"
    ours, theirs = make_cells(tmp_path, 2)
    for number, cell in enumerate((ours, theirs)):
        score_cell(cell, {seed: 0.6 + 0.1 * number * (seed % 2) for seed in SEEDS}, images=40)
    ours.runs[77]["predictions"].unlink()
    assert difference([(ours, theirs)]).undecided == "predictions that can be compared are missing"
    theirs.results = {}
    assert difference([(ours, theirs)]) is None and difference([]) is None


@pytest.mark.parametrize("name", equal_methods.WORLDS)
@pytest.mark.parametrize("images", [20, 100])
def test_two_equal_methods_are_rarely_called_different(name, images):
    """A few grids of each kind; `python tests/support/equal_methods.py --grids 1000` has many, also of 2,533 images."""
    found = equal_methods.rates(equal_methods.WORLDS[name], images, grids=60)
    (alone, _), (both, _) = found["seeds alone"], found["both intervals"]
    assert both <= 0.1  # 5 % of 60 are 3; more than 6 would come by chance in 3 of 100 cases
    assert name != "seeds nearly alike" or alone > 0.3


def test_a_difference_of_the_detectable_size_is_found():
    world = equal_methods.WORLDS["in between"]
    found = equal_methods.rates(world, 500, grids=40, gain=0.6)
    rate, shows = found["both intervals"]
    assert rate > 0.7 and 0.02 < shows < 0.1
