"""Scores of groups: by hand with pandas; labels, images without a group, and the choice of the rule."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from pipeline.learn.by_group import RULES, Units, choose, grouped
from pipeline.runs.predictions import Predictions

CLASSES = ("a", "b", "c")


def made(count: int, patients: int, *, mixed: int = 0, seed: int = 0) -> tuple[Predictions, dict[str, str]]:
    """Predictions of `count` images of some patients; every tenth image has none."""
    rng = np.random.default_rng(seed)
    of = rng.integers(0, patients, count)
    label = np.where(np.arange(count) < mixed, rng.integers(0, 3, count), of % 3)
    keys = [f"k{number}" for number in rng.permutation(count)]
    groups = {key: f"p{patient}" for number, (key, patient) in enumerate(zip(keys, of, strict=True)) if number % 10}
    scores = rng.uniform(0, 1, (count, 3)).astype(np.float32)
    return Predictions(keys, CLASSES, np.eye(3, dtype=np.int8)[label], scores), groups


def frame(predictions: Predictions, groups: dict[str, str]) -> pd.DataFrame:
    out = pd.DataFrame(predictions.scores.astype(np.float64), columns=list(CLASSES))
    out["label"] = predictions.targets.argmax(axis=1)
    out["unit"] = [groups.get(key, key) for key in predictions.keys]
    return out


AGGREGATES = {
    "mean": lambda values: values.mean(),
    "max": lambda values: values.max(),
    "top 3": lambda values: values.nlargest(3).mean(),
}


@pytest.mark.parametrize("rule", RULES)
def test_scores_are_those_of_pandas(rule: str) -> None:
    predictions, groups = made(300, 60)
    found = grouped(predictions, Units.of_images(predictions.keys, groups), rule, "multi-class")
    by_unit = frame(predictions, groups).groupby("unit", sort=False)
    expected = by_unit[list(CLASSES)].agg(AGGREGATES[rule])
    assert found.predictions.keys == list(expected.index)
    assert np.allclose(found.predictions.scores, expected.to_numpy(), atol=1e-12)
    assert found.predictions.targets.argmax(axis=1).tolist() == by_unit["label"].first().tolist()
    assert found.mixed == 0


def test_groups_of_mixed_labels_are_counted_and_left_out_where_an_image_has_one_class() -> None:
    predictions, groups = made(300, 60, mixed=40)
    units = Units.of_images(predictions.keys, groups)
    found = grouped(predictions, units, "mean", "multi-class")
    kinds = frame(predictions, groups).groupby("unit")["label"].nunique()
    assert found.mixed == (kinds > 1).sum() > 10
    assert set(found.predictions.keys) == set(kinds.index[kinds == 1])
    several = grouped(predictions, units, "mean", "multi-label")
    assert several.mixed == found.mixed and len(several.predictions.keys) == len(kinds)
    row = several.predictions.keys.index(kinds.index[kinds > 1][0])
    assert several.predictions.targets[row].sum() == kinds[kinds > 1].iloc[0]


def test_an_image_without_a_group_is_one_of_its_own_even_if_a_group_has_its_name() -> None:
    units = Units.of_images(["x", "y", "z"], {"y": "x", "z": "x"})
    assert units.names == ["x", "x"] and units.of.tolist() == [0, 1, 1] and units.alone == 1


def predictions_of(scores: list[float], labels: list[int]) -> Predictions:
    positive = np.array(scores, dtype=np.float32)
    targets = np.eye(2, dtype=np.int8)[labels]
    both = np.stack([np.full_like(positive, 0.6), positive], axis=1)
    return Predictions([f"k{i}" for i in range(len(scores))], ("no", "yes"), targets, both)


def test_the_rule_is_that_of_the_highest_validation_score() -> None:
    groups = {f"k{i}": f"p{i // 4}" for i in range(8)}
    one_finding = predictions_of([0.9, 0.1, 0.1, 0.1, 0.2, 0.3, 0.2, 0.3], [1] * 4 + [0] * 4)
    found = choose([one_finding], groups, "balanced_accuracy", "multi-class")
    assert found.rule == "max" and found.reason == "validation mean 0.5000, max 1.0000, top 3 0.5000"
    outlier = predictions_of([0.7, 0.7, 0.7, 0.7, 0.9, 0.1, 0.2, 0.1], [1] * 4 + [0] * 4)
    assert choose([outlier], groups, "balanced_accuracy", "multi-class").rule == "mean"
    assert choose([one_finding, one_finding, outlier], groups, "f1_macro", "multi-class").rule == "max"


def test_without_a_choice_it_is_the_mean_and_why_is_said() -> None:
    predictions = predictions_of([0.9, 0.1], [1, 0])
    assert choose([], {}, "accuracy", "multi-class").reason == "no validation scores are stored"
    alone = choose([predictions], {"k0": "p"}, "accuracy", "multi-class")
    assert (alone.rule, alone.reason) == ("mean", "no validation group has two images")
    mixed = choose([predictions], {"k0": "p", "k1": "p"}, "accuracy", "multi-class")
    assert (mixed.rule, mixed.reason) == ("mean", "validation scores are not defined")
