"""Scores of patients or lesions, from the scores of their images: mean, maximum, or the mean of the highest few.

Which rule fits is chosen on validation scores. An image without a group is a group of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.runs.predictions import Predictions

TOP = 3  # ASSUMED: few enough that a patient with many images may have a finding in a part of them
DEFAULT = "mean"
RULES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    DEFAULT: lambda scores: scores.mean(axis=0),
    "max": lambda scores: scores.max(axis=0),
    f"top {TOP}": lambda scores: np.sort(scores, axis=0)[-TOP:].mean(axis=0),
}
"""From the scores of a group's images [k, classes] to the group's [classes], each class by itself."""


@dataclass(frozen=True)
class Units:
    """Which images belong together."""

    names: list[str]
    """The groups' names; of an image without a group its key."""
    of: np.ndarray
    """The number of each image's group: int64 [n]."""
    alone: int
    """Images without a group."""

    @classmethod
    def of_images(cls, keys: Sequence[str], groups: Mapping[str, str]) -> Units:
        """groups: of the images that have one, by key."""
        names = [("group", groups[key]) if key in groups else ("image", key) for key in keys]
        number = {name: position for position, name in enumerate(dict.fromkeys(names))}
        of = np.array([number[name] for name in names], dtype=np.int64)
        return cls([name for _, name in number], of, sum(kind == "image" for kind, _ in names))

    def members(self) -> list[np.ndarray]:
        """The positions of each group's images."""
        return np.split(np.argsort(self.of, kind="stable"), np.cumsum(np.bincount(self.of))[:-1])

    def scores(self, scores: np.ndarray, rule: str) -> np.ndarray:
        """The groups' scores [units, classes] from those of the images [n, classes]."""
        return np.stack([RULES[rule](scores[rows].astype(np.float64)) for rows in self.members()])


@dataclass(frozen=True)
class Grouped:
    """The scores of groups, with what a reader must know of them."""

    predictions: Predictions
    """A row for each group, except those of mixed labels where an image has one class."""
    mixed: int
    """Groups whose images have different labels."""


def grouped(predictions: Predictions, units: Units, rule: str, task: str) -> Grouped:
    """The groups' labels and scores.

    Where an image has one class, a group of mixed labels has no right answer and is left out; where it may have
    several, a group has each class that one of its images has.
    """
    members = units.members()
    labels = np.stack([predictions.targets[rows].max(axis=0) for rows in members])
    mixed = np.array([(predictions.targets[rows] != predictions.targets[rows[0]]).any() for rows in members])
    kept = ~mixed if task == "multi-class" else np.ones(len(members), bool)
    names = [name for name, keep in zip(units.names, kept, strict=True) if keep]
    scores = units.scores(predictions.scores, rule)[kept]
    return Grouped(Predictions(names, predictions.classes, labels[kept], scores), int(mixed.sum()))


@dataclass(frozen=True)
class Choice:
    """The rule that is used, and why."""

    rule: str
    reason: str


def choose(seeds: Sequence[Predictions], groups: Mapping[str, str], metric: str, task: str) -> Choice:
    """The rule with the highest mean score of validation groups, over runs that differ in their seeds.

    seeds: the stored validation predictions; none of runs of earlier code. Of equal rules the first is taken.
    """
    from pipeline.learn import metrics  # it imports scikit-learn, and most reports know no groups

    if not seeds:
        return Choice(DEFAULT, "no validation scores are stored")
    units = [Units.of_images(each.keys, groups) for each in seeds]
    if all(len(unit.names) == len(unit.of) for unit in units):
        return Choice(DEFAULT, "no validation group has two images")
    found = {}
    for rule in RULES:
        scored = [grouped(each, unit, rule, task).predictions for each, unit in zip(seeds, units, strict=True)]
        each = [metrics.score(s.targets.astype(int), s.scores, s.classes, task)[metric] for s in scored if s.keys]
        found[rule] = float(np.mean([score for score in each if score is not None] or [np.nan]))
    if all(np.isnan(score) for score in found.values()):
        return Choice(DEFAULT, "validation scores are not defined")
    best = max(found, key=lambda rule: -np.inf if np.isnan(found[rule]) else found[rule])
    return Choice(best, "validation " + ", ".join(f"{rule} {score:.4f}" for rule, score in found.items()))
