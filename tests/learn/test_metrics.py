"""Metrics by hand on a few predictions (they are scikit-learn's; the decisions before them are ours)."""

import numpy as np
import pytest

from pipeline.learn.metrics import score
from pipeline.results import bootstrap, summed
from pipeline.runs.predictions import Predictions

CLASSES = ("a", "b", "c")


def test_a_multi_class_score_by_hand():
    targets = np.eye(3, dtype=int)[[0, 0, 0, 1, 2]]
    scores = np.array([[0.9, 0.1, 0.2], [0.4, 0.3, 0.1], [0.2, 0.8, 0.1], [0.1, 0.7, 0.6], [0.1, 0.2, 0.9]])
    found = score(targets, scores, CLASSES, "multi-class")
    # at 0.5: true positives 0, 3, 4; false positives (2, b), (3, c); false negatives 1, 2
    assert found["f1_micro"] == pytest.approx(2 * 3 / (2 * 3 + 2 + 2))
    assert found["recall_micro"] == pytest.approx(3 / 5)
    # by argmax: a a b b c
    assert found["accuracy"] == pytest.approx(4 / 5)
    assert found["balanced_accuracy"] == pytest.approx((2 / 3 + 1 + 1) / 3)
    assert found["f1_macro"] == pytest.approx((4 / 5 + 2 / 3 + 1) / 3)
    assert found["per_class"]["a"]["support"] == 3
    assert found["majority"]["accuracy"] == pytest.approx(3 / 5)
    assert found["majority"]["balanced_accuracy"] == pytest.approx(1 / 3)


def test_a_multi_label_score_decides_each_class_at_one_half():
    targets = np.array([[1, 1, 0], [0, 1, 0], [0, 0, 0]])
    scores = np.array([[0.9, 0.4, 0.1], [0.2, 0.6, 0.7], [0.1, 0.1, 0.1]])
    found = score(targets, scores, CLASSES, "multi-label")
    assert found["f1_micro"] == pytest.approx(2 * 2 / (2 * 2 + 1 + 1))
    assert found["accuracy"] == pytest.approx(1 / 3)  # all classes of an image right
    assert found["majority"] is None


def test_auroc_is_none_for_a_class_that_the_test_part_lacks():
    targets = np.array([[1, 0, 0], [0, 1, 0]])
    scores = np.array([[0.9, 0.1, 0.5], [0.2, 0.8, 0.5]])
    found = score(targets, scores, CLASSES, "multi-class")
    assert found["per_class"]["c"]["auroc"] is None
    assert found["auroc"] == pytest.approx(1.0)


NEED_IMAGES = ("f1_micro", "f1_macro", "recall_micro", "balanced_accuracy")


@pytest.mark.parametrize("metric", NEED_IMAGES)
def test_all_but_accuracy_is_none_where_no_image_has_a_class(metric):
    targets, scores = np.zeros((3, 3), int), np.full((3, 3), 0.6)
    found = score(targets, scores, CLASSES, "multi-label")
    assert [name for name in (*NEED_IMAGES, "accuracy") if found[name] is not None] == ["accuracy"]
    predictions = Predictions(["x", "y", "z"], CLASSES, targets, scores)
    assert summed.score(predictions, metric, "multi-label") is None
    predictions = Predictions(["x", "y", "z"], CLASSES, np.eye(3, dtype=int) * [1, 0, 0], scores)
    images = bootstrap.TestImages(1, np.arange(3), 3)
    (drawn,) = bootstrap.resampled([predictions], metric, "multi-label", images)
    assert 0 < np.isnan(drawn).sum() < len(drawn) and np.nanmin(drawn) > 0
