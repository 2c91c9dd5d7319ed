"""The bootstrap of test images and groups against brute force with the same draws, and scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.learn import metrics
from pipeline.results import bootstrap
from pipeline.runs.predictions import Predictions

CLASSES = ("a", "b", "c")


def predictions(rng, n=60, *, single=True) -> Predictions:
    scores = rng.random((n, 3)).astype(np.float32)
    targets = np.eye(3, dtype=int)[rng.integers(0, 3, n)] if single else (rng.random((n, 3)) < 0.4).astype(int)
    return Predictions([f"image {i}" for i in range(n)], CLASSES, targets, scores)


def drawn_images(images: bootstrap.TestImages) -> list[np.ndarray]:
    """The positions of the images of each draw, one by one."""
    weights = np.concatenate(list(bootstrap._weights(images))).astype(int)
    return [
        np.concatenate([np.flatnonzero(images.unit == unit) for unit in np.repeat(np.arange(images.units), row)])
        for row in weights
    ]


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("task", ["multi-class", "multi-label"])
@pytest.mark.parametrize("metric", ["f1_micro", "f1_macro", "recall_micro", "balanced_accuracy", "accuracy"])
def test_a_drawn_score_is_scikit_learns_of_the_drawn_images(metric, task, grouped):
    rng = np.random.default_rng(0)
    first = predictions(rng, single=task == "multi-class")
    other = Predictions(first.keys, CLASSES, first.targets, rng.random((60, 3)).astype(np.float32))
    groups = {key: f"patient {i // 4}" for i, key in enumerate(first.keys) if i < 50} if grouped else {}
    found = bootstrap.draw({77: first, 78: other}, "mine", metric, task, groups)
    assert found.images.units == (13 + 10 if grouped else 60)
    for number, picked in enumerate(drawn_images(found.images)[:8]):
        for seed, one in ((77, first), (78, other)):
            wanted = metrics.score(one.targets[picked], one.scores[picked], CLASSES, task)[metric]
            assert found.scores[seed][number] == pytest.approx(wanted)


def test_a_draw_without_an_image_of_a_rare_class_says_nothing_of_it():
    """A network that is always right has a macro F1 of 1 in each draw; a class without any test image counts as 0."""
    truth = np.eye(3, dtype=int)[[0, 0, *[1] * 30]]
    right = Predictions([str(i) for i in range(32)], CLASSES, truth, 0.1 + 0.8 * truth)
    lacking = np.mean(
        [not np.isin([0, 1], picked).any() for picked in drawn_images(bootstrap.test_images("mine", right.keys, {}))]
    )
    assert 0.05 < lacking < 0.3
    for metric, wanted in (("f1_macro", 2 / 3), ("balanced_accuracy", 1.0)):
        assert metrics.score(truth, right.scores, CLASSES, "multi-class")[metric] == pytest.approx(wanted)
        found = bootstrap.draw({77: right}, "mine", metric, "multi-class", {})
        np.testing.assert_allclose(found.scores[77], wanted)
    scores = np.random.default_rng(1).random((32, 3))
    found = bootstrap.draw({77: Predictions(right.keys, CLASSES, truth, scores)}, "mine", "f1_macro", "multi-class", {})
    for picked, drawn in zip(drawn_images(found.images)[:50], found.scores[77], strict=False):
        per_class = metrics.score(truth[picked], scores[picked], CLASSES, "multi-class")["per_class"].values()
        assert drawn == pytest.approx(2 / 3 * np.mean([each["f1"] for each in per_class if each["support"]]))


def test_images_of_a_group_are_drawn_together_and_one_less_unit_than_there_is():
    keys = list("abcdef")
    images = bootstrap.test_images("mine", keys, {"a": "x", "c": "x", "d": "y"})
    assert images.unit.tolist() == [0, 1, 0, 2, 3, 4] and images.units == 5
    weights = np.concatenate(list(bootstrap._weights(images)))
    assert weights.shape == (bootstrap.RESAMPLES, 5) and (weights.sum(axis=1) == 4).all()
    assert np.abs(weights.mean(axis=0) - 4 / 5).max() < 0.1


def test_draws_are_those_of_the_test_images_whatever_the_run_and_the_blocks(monkeypatch):
    rng = np.random.default_rng(3)
    one, other = predictions(rng), predictions(rng)
    draws = [bootstrap.draw({77: each}, "mine", "accuracy", "multi-class", {}) for each in (one, other, one)]
    assert draws[0].images.seed == draws[1].images.seed
    np.testing.assert_array_equal(draws[0].scores[77], draws[2].scores[77])
    elsewhere = bootstrap.test_images("another dataset", one.keys, {})
    assert elsewhere.seed != draws[0].images.seed
    monkeypatch.setattr(bootstrap, "BLOCK", 60 * 300)
    assert sum(len(block) for block in bootstrap._weights(draws[0].images)) == bootstrap.RESAMPLES


def test_the_drawn_means_vary_as_the_error_of_a_mean():
    rng = np.random.default_rng(4)
    for n in (20, 400):
        label = rng.integers(0, 3, n)
        right = rng.random(n) < 0.7
        scores = np.eye(3, dtype=np.float32)[np.where(right, label, (label + 1) % 3)]
        one = Predictions([str(i) for i in range(n)], CLASSES, np.eye(3, dtype=int)[label], scores)
        found = bootstrap.draw({77: one}, "mine", "accuracy", "multi-class", {})
        wanted = right.std(ddof=1) / np.sqrt(n)
        assert found.scores[77].std() == pytest.approx(wanted, rel=0.08)


def test_predictions_of_other_images_or_of_no_sum_are_not_drawn():
    rng = np.random.default_rng(2)
    one = predictions(rng, 9)
    other = Predictions([f"b{i}" for i in range(9)], CLASSES, one.targets, one.scores)
    assert bootstrap.draw({77: one, 78: other}, "mine", "accuracy", "multi-class", {}) is None
    assert bootstrap.draw({77: one}, "mine", "kappa", "multi-class", {}) is None
    together = dict.fromkeys(one.keys, "one patient")
    assert bootstrap.draw({77: one}, "mine", "accuracy", "multi-class", together) is None
