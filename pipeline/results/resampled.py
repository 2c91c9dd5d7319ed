"""Scores of stored predictions, and their intervals when images or groups are resampled."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pipeline.results import statistics
from pipeline.runs.predictions import Predictions

Interval = tuple[float, float] | None


def scores(seeds: Sequence[Predictions], metric: str, task: str) -> list[float]:
    """The metric of each seed's predictions for which it is defined."""
    from pipeline.learn import metrics

    found = [metrics.score(each.targets.astype(int), each.scores, each.classes, task)[metric] for each in seeds]
    return [float(score) for score in found if score is not None]


def interval(seeds: Sequence[Predictions], metric: str, task: str, unit: np.ndarray) -> Interval:
    """The 95 % interval of the mean score over seeds when units are resampled; unit: of each row, int64 [n].

    None for a metric that is not resampled (AUROC).
    """
    count = int(unit.max()) + 1
    rng = np.random.default_rng(statistics.BOOTSTRAP_SEED)
    drawn = rng.multinomial(count, np.full(count, 1 / count), size=statistics.RESAMPLES)[:, unit].astype(np.float64)
    of = [statistics.resampled_score(metric, each.targets, each.scores, task) for each in seeds]
    found = [score(drawn) for score in of if score is not None]
    if len(found) < len(of):
        return None
    low, high = np.percentile(np.mean(found, axis=0), [2.5, 97.5])
    return float(low), float(high)
