"""How well scores rank images, one class against the rest: ROC and precision–recall curves, sensitivities."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.runs.predictions import Predictions

GRID = np.linspace(0, 1, 201)
"""The false positive rates and recalls at which curves of several seeds are averaged."""

Curve = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""From targets [n] of 0 and 1 and scores [n] to values on `GRID`."""


@dataclass(frozen=True)
class Ranking:
    """Means over the classes of which there are test images, and others."""

    auroc: float
    average_precision: float
    sensitivity: float
    """At the wanted specificity, read off the ROC curves of the test images."""


def ranking(predictions: Predictions, specificity: float) -> Ranking | None:
    """What one run's predictions give; None where no class has test images and others."""
    from sklearn import metrics as sk

    found = []
    for true, scores in (_of_class(predictions, number) for number in defined(predictions)):
        areas = sk.roc_auc_score(true, scores), sk.average_precision_score(true, scores)
        found.append((*areas, sensitivity(true, scores, specificity)))
    return Ranking(*map(float, np.mean(found, axis=0))) if found else None


def sensitivity(targets: np.ndarray, scores: np.ndarray, specificity: float) -> float:
    """The greatest sensitivity of a threshold that has at least this specificity."""
    from sklearn import metrics as sk

    false, true, _ = sk.roc_curve(targets, scores, drop_intermediate=False)
    return float(true[false <= 1 - specificity + 1e-9].max())


def defined(predictions: Predictions) -> list[int]:
    """The classes that have both images of their own and others."""
    having = predictions.targets.sum(axis=0)
    return [int(number) for number in np.flatnonzero((having > 0) & (having < len(predictions.keys)))]


def roc(targets: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """The true positive rate at each false positive rate of `GRID`."""
    from sklearn import metrics as sk

    false, true, _ = sk.roc_curve(targets, scores, drop_intermediate=False)
    return np.asarray(np.interp(GRID, false, true))


def precision_recall(targets: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """The precision of the highest threshold that has each recall of `GRID`."""
    from sklearn import metrics as sk

    precision, recall, _ = sk.precision_recall_curve(targets, scores)
    return np.asarray(precision[::-1][np.searchsorted(recall[::-1], GRID - 1e-9)])


def mean_curves(seeds: Sequence[Predictions], curve: Curve) -> dict[int, np.ndarray]:
    """The curve of each class, by its number, averaged over seeds."""
    numbers = defined(seeds[0])
    return {n: np.mean([curve(*_of_class(predictions, n)) for predictions in seeds], axis=0) for n in numbers}


def _of_class(predictions: Predictions, number: int) -> tuple[np.ndarray, np.ndarray]:
    return predictions.targets[:, number], predictions.scores[:, number]
