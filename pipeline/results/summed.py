"""Metrics as functions of sums over images: scores of stored predictions, and of draws of their images.

A draw without an image of a class says nothing of the class: its mean over classes leaves the class out, and without
an image of any class only accuracy is defined. A class without an image among all has an F1 of 0 in `learn.metrics`,
as scikit-learn counts it, and in every draw.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from pipeline.runs.predictions import Predictions


@dataclass(frozen=True)
class Summed:
    """A metric as a function of sums over images."""

    parts: np.ndarray
    """float32 [n, k]: what is summed, small whole numbers."""
    score: Callable[[np.ndarray], np.ndarray]
    """From sums [b, k] to scores [b]; NaN where sums do not define one."""


def score(predictions: Predictions, metric: str, task: str) -> float | None:
    """A metric of predictions, equal to `learn.metrics`; None where it is not defined."""
    summed = summed_metric(metric, predictions.targets, predictions.scores, task)
    if summed is not None:
        value = float(summed.score(summed.parts.sum(axis=0, dtype=np.float64)[None])[0])
        return None if np.isnan(value) else value
    from pipeline.learn import metrics

    found = metrics.score(predictions.targets.astype(int), predictions.scores, predictions.classes, task)[metric]
    return None if found is None else float(found)


def summed_metric(metric: str, targets: np.ndarray, scores: np.ndarray, task: str) -> Summed | None:
    """A metric of `learn.metrics` as a function of sums; None for a metric that has no such form here.

    targets, scores: [n, classes].
    """
    truth = targets > 0.5
    predicted = scores > 0.5
    if metric not in ("f1_micro", "recall_micro") and task == "multi-class":
        predicted = np.eye(scores.shape[1], dtype=bool)[scores.argmax(axis=1)]
    hit, there = truth & predicted, truth.any(axis=0).mean()  # [n, classes]; the share of classes that have an image
    exact: np.ndarray = (truth == predicted).all(axis=1, keepdims=True)
    classwise = [hit, predicted, truth]
    totals = [part.sum(axis=1, keepdims=True) for part in classwise]
    known: dict[str, tuple[list[np.ndarray], Callable[[list[np.ndarray]], np.ndarray]]] = {
        "f1_micro": (totals, lambda sums: f1(*sums)[:, 0]),
        "recall_micro": (totals, lambda sums: recall(*sums)[:, 0]),
        "f1_macro": (classwise, lambda sums: there * _mean(f1(*sums))),
        "balanced_accuracy": (classwise, lambda sums: _mean(recall(*sums))),
        "accuracy": ([exact, np.ones_like(exact)], lambda sums: _ratio(*sums)[:, 0]),
    }
    if metric not in known:
        return None
    parts, score = known[metric]
    return Summed(
        np.concatenate(parts, axis=1).astype(np.float32), lambda sums: score(np.split(sums, len(parts), axis=1))
    )


def f1(hits: np.ndarray, named: np.ndarray, there: np.ndarray) -> np.ndarray:
    """F1 from counts of right predictions, of predictions and of images of a class; NaN where it has no image."""
    return np.where(there > 0, _ratio(2 * hits, named + there), np.nan)


def recall(hits: np.ndarray, named: np.ndarray, there: np.ndarray) -> np.ndarray:
    """As `f1`."""
    return np.where(there > 0, _ratio(hits, there), np.nan)


def precision(hits: np.ndarray, named: np.ndarray, there: np.ndarray) -> np.ndarray:
    """As `f1`; 0 for a class that has images and is never predicted."""
    return np.where(there > 0, _ratio(hits, named), np.nan)


def _mean(of_classes: np.ndarray) -> np.ndarray:
    """The mean [b] of the classes [b, classes] that have a score; NaN where none has."""
    defined = ~np.isnan(of_classes)
    total, number = np.nansum(of_classes, axis=1), defined.sum(axis=1)
    return np.where(number > 0, _ratio(total, number), np.nan)


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """part / whole, and 0 where whole is 0."""
    out = np.zeros_like(part, dtype=np.float64)
    np.divide(part, whole, out=out, where=whole > 0)
    return out
