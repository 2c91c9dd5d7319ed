"""Paired tests, Holm's correction and bootstrap intervals, against scipy, scikit-learn and arithmetic."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from pipeline.learn import metrics
from pipeline.results import statistics
from pipeline.runs.predictions import read_predictions, write_predictions


def test_a_paired_test_is_scipys_over_common_seeds():
    ours, theirs = {77: 0.5, 78: 0.61, 79: 0.7, 80: 0.1}, {77: 0.4, 78: 0.5, 79: 0.63, 99: 0.9}
    found = statistics.paired(ours, theirs)
    wanted = stats.ttest_rel([0.5, 0.61, 0.7], [0.4, 0.5, 0.63])
    assert found.n == 3
    assert found.p == pytest.approx(wanted.pvalue)
    assert found.mean == pytest.approx(np.mean([0.1, 0.11, 0.07]))


def test_fewer_than_three_pairs_are_not_tested():
    assert statistics.paired({1: 0.5}, {2: 0.5}) is None
    found = statistics.paired({1: 0.5, 2: 0.6}, {1: 0.4, 2: 0.4})
    assert (found.p, found.n) == (None, 2)


def test_seeds_that_all_agree_are_no_division_by_zero():
    same = {seed: 0.5 for seed in range(3)}
    assert statistics.paired(same, same).p is None
    assert statistics.paired(same, {seed: 0.25 for seed in range(3)}).p is None
    rounded = {1: 0.1 + 0.2, 2: 0.3 + 0.3, 3: 0.7}  # 0.30000000000000004: differences that are equal but for rounding
    found = statistics.paired(rounded, {1: 0.2, 2: 0.5, 3: 0.6})
    assert found.deviation != 0 and found.p is None


def test_holms_correction_by_hand():
    # sorted 0.01, 0.02, 0.03, 0.04: times 4, 3, 2, 1, never falling
    assert statistics.holm([0.04, None, 0.01, 0.03, 0.02]) == pytest.approx([0.06, None, 0.04, 0.06, 0.06])
    assert statistics.holm([0.9, 0.8]) == [1.0, 1.0]


def test_the_interval_of_a_mean_is_students():
    values = [0.1, 0.2, 0.4, 0.5]
    wanted = stats.t.interval(0.95, 3, loc=np.mean(values), scale=stats.sem(values))
    assert statistics.t_interval(values) == pytest.approx(wanted)
    assert statistics.t_interval([0.1, 0.2]) is None


CLASSES = ("a", "b", "c")


def predictions(rng, n=60, *, single=True):
    scores = rng.random((n, 3))
    targets = np.eye(3, dtype=int)[rng.integers(0, 3, n)] if single else (rng.random((n, 3)) < 0.4).astype(int)
    return targets, scores


@pytest.mark.parametrize("task", ["multi-class", "multi-label"])
@pytest.mark.parametrize("metric", ["f1_micro", "f1_macro", "recall_micro", "balanced_accuracy", "accuracy"])
def test_a_resampled_score_is_scikit_learns_of_the_resampled_images(metric, task):
    rng = np.random.default_rng(0)
    targets, scores = predictions(rng, single=task == "multi-class")
    counts = rng.multinomial(60, np.full(60, 1 / 60), size=5)
    found = statistics.resampled_score(metric, targets, scores, task)(counts.astype(float))
    for row, value in zip(counts, found, strict=True):
        drawn = np.repeat(np.arange(60), row)
        assert value == pytest.approx(metrics.score(targets[drawn], scores[drawn], CLASSES, task)[metric])


def test_an_interval_holds_the_score_and_narrows_with_more_images(tmp_path):
    rng = np.random.default_rng(1)
    widths = []
    for n in (50, 800):
        targets, _ = predictions(rng, n)
        scores = np.clip(targets * 0.4 + rng.random((n, 3)) * 0.7, 0, 1)
        path = tmp_path / f"{n}.parquet"
        write_predictions(path, [str(i) for i in range(n)], CLASSES, targets, scores)
        low, high = statistics.bootstrap_interval([read_predictions(path)], "accuracy", "multi-class")
        assert low < metrics.score(targets, scores, CLASSES, "multi-class")["accuracy"] < high
        widths.append(high - low)
    assert widths[1] < widths[0] / 2


def test_predictions_of_other_images_have_no_common_interval(tmp_path):
    rng = np.random.default_rng(2)
    for name in ("a", "b"):
        targets, scores = predictions(rng, 9)
        keys = [f"{name}{i}" for i in range(9)]
        write_predictions(tmp_path / name, keys, CLASSES, targets, scores)
    assert (
        statistics.bootstrap_interval([read_predictions(tmp_path / name) for name in "ab"], "accuracy", "multi-class")
        is None
    )
    assert statistics.bootstrap_interval([read_predictions(tmp_path / "a")], "kappa", "multi-class") is None
