"""Metrics as functions of sums over images: scores of stored predictions, and of draws of their images."""

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
    hit, wrong, missed = truth & predicted, predicted & ~truth, truth & ~predicted  # [n, classes] each
    exact: np.ndarray = (truth == predicted).all(axis=1, keepdims=True)
    totals = [part.sum(axis=1, keepdims=True) for part in (hit, wrong, missed)]
    known: dict[str, tuple[list[np.ndarray], Callable[[list[np.ndarray]], np.ndarray]]] = {
        "f1_micro": (totals, lambda sums: _f1(*sums)[:, 0]),
        "recall_micro": ([totals[0], totals[2]], lambda sums: ratio(sums[0], sums[0] + sums[1])[:, 0]),
        "f1_macro": ([hit, wrong, missed], lambda sums: _f1(*sums).mean(axis=1)),
        "balanced_accuracy": ([hit, truth], lambda sums: _mean_of_present(*sums)),
        "accuracy": ([exact, np.ones_like(exact)], lambda sums: ratio(*sums)[:, 0]),
    }
    if metric not in known:
        return None
    parts, score = known[metric]
    return Summed(
        np.concatenate(parts, axis=1).astype(np.float32), lambda sums: score(np.split(sums, len(parts), axis=1))
    )


def _f1(hits: np.ndarray, wrongs: np.ndarray, misses: np.ndarray) -> np.ndarray:
    return ratio(2 * hits, 2 * hits + wrongs + misses)


def _mean_of_present(hits: np.ndarray, present: np.ndarray) -> np.ndarray:
    """The mean recall of the classes that a draw has images of; NaN where it has none of any."""
    there = (present > 0).sum(axis=1)
    return np.where(there > 0, ratio(hits, present).sum(axis=1) / np.maximum(there, 1), np.nan)


def ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """part / whole, and 0 where whole is 0."""
    out = np.zeros_like(part, dtype=np.float64)
    np.divide(part, whole, out=out, where=whole > 0)
    return out
