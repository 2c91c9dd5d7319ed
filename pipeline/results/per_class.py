"""The scores of each class, over seeds, with intervals over resampled test images or groups."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.results import bootstrap, summed
from pipeline.results.collect import Cell
from pipeline.results.resampled import Interval
from pipeline.runs.predictions import Predictions

COUNTED = {"precision": summed.precision, "recall": summed.recall, "f1": summed.f1}
SCORES = (*COUNTED, "auroc")

Drawn = dict[str, list[list[np.ndarray]]]
"""By score and class: each seed's values on the draws of the test images, [RESAMPLES]."""


@dataclass(frozen=True)
class ClassScores:
    """One class of a cell's dataset."""

    name: str
    images: int
    """Test images that show it."""
    values: dict[str, list[float]]
    """Of each score, the values of the finished seeds that define it."""
    intervals: dict[str, Interval]
    """Of the mean over seeds of each score; None where predictions are missing or the score is not defined."""


def of_cell(cell: Cell) -> list[ClassScores]:
    """The classes of a cell in the order of its dataset; empty without a finished run."""
    found = [result.metrics.get("per_class") or {} for result in cell.results.values()]
    if not found or not all(found):
        return []
    drawn = _drawn(cell)
    out = []
    for number, (name, first) in enumerate(found[0].items()):
        shown = found if first["support"] else []  # without a test image of the class none of its scores is defined
        values = {score: [each[name][score] for each in shown if each[name][score] is not None] for score in SCORES}
        ends = {
            score: bootstrap.interval(drawn[score][number]) if values[score] and drawn else None for score in SCORES
        }
        out.append(ClassScores(name, int(first["support"]), values, ends))
    return out


def _drawn(cell: Cell) -> Drawn:
    """Empty where predictions are missing or of other images."""
    seeds = list(cell.predictions.values())
    if not seeds or len(seeds) < len(cell.results) or any(each.keys != seeds[0].keys for each in seeds):
        return {}
    groups = cell.groups.by_key if cell.groups else {}
    images = bootstrap.test_images(cell.spec.dataset.name, seeds[0].keys, groups)
    if images.units < 2:
        return {}
    return {**_counted(seeds, cell.task, images), "auroc": _auroc(seeds, images)}


def _counted(
    seeds: Sequence[Predictions], task: str, images: bootstrap.TestImages
) -> dict[str, list[list[np.ndarray]]]:
    """Precision, recall and F1; NaN in draws without an image of the class, which say nothing of it."""
    classes = len(seeds[0].classes)
    out: Drawn = {score: [[] for _ in range(classes)] for score in COUNTED}
    for each in seeds:
        truth = each.targets > 0.5
        predicted = each.scores > 0.5
        if task == "multi-class":
            predicted = np.eye(classes, dtype=bool)[each.scores.argmax(axis=1)]
        parts = np.concatenate([truth & predicted, predicted, truth], axis=1).astype(np.float32)
        hits, named, there = np.split(bootstrap.drawn_sums(parts, images), 3, axis=1)
        for number in range(classes):
            of = hits[:, number], named[:, number], there[:, number]
            for name, score in COUNTED.items():
                out[name][number].append(score(*of))
    return out


def _auroc(seeds: Sequence[Predictions], images: bootstrap.TestImages) -> list[list[np.ndarray]]:
    def of_class(number: int) -> list[np.ndarray]:
        column = slice(number, number + 1)
        one = [Predictions(p.keys, p.classes[column], p.targets[:, column], p.scores[:, column]) for p in seeds]
        return bootstrap.resampled(one, "auroc", "multi-label", images) or []

    return [of_class(number) for number in range(len(seeds[0].classes))]
