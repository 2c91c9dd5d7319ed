"""Scores of stored predictions, and their intervals when images or groups are resampled."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pipeline.core.seeds import derive
from pipeline.results import bootstrap
from pipeline.results.summed import score
from pipeline.runs.predictions import Predictions

Interval = tuple[float, float] | None


def scores(seeds: Sequence[Predictions], metric: str, task: str) -> list[float]:
    """The metric of each seed's predictions for which it is defined."""
    found = [score(each, metric, task) for each in seeds]
    return [value for value in found if value is not None]


def interval(seeds: Sequence[Predictions], metric: str, task: str, unit: np.ndarray) -> Interval:
    """The 95 % interval of the mean score over seeds when units are resampled; unit: of each row, int64 [n].

    None for a metric that is not resampled.
    """
    images = bootstrap.TestImages(derive("test images", *seeds[0].keys), unit, int(unit.max()) + 1)
    found = bootstrap.resampled(seeds, metric, task, images)
    return None if found is None else bootstrap.interval(found)
