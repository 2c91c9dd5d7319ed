"""Scores of resampled test images, from stored predictions: the same draws for all runs on the same test images.

What is drawn are groups of images (patients, lesions) where the shards know them, else images. A metric is a function
of sums over images, so a draw is a row of weights, and all draws of a run are one matrix product.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.core.seeds import derive
from pipeline.learn.by_group import Units
from pipeline.results.collect import Cell
from pipeline.results.summed import summed_metric
from pipeline.runs.predictions import Predictions

RESAMPLES = 1000
BLOCK = 1 << 24  # weights that are in memory at once: 64 MiB


@dataclass(frozen=True)
class TestImages:
    """The test images of a run, as they are drawn."""

    seed: int
    """Of the draws: a function of the images."""
    unit: np.ndarray
    """int [n]: which unit each image belongs to; units are drawn."""
    units: int


@dataclass(frozen=True)
class Drawn:
    """The scores of a cell's seeds for the same draws of the test images."""

    scores: dict[int, np.ndarray]
    """By seed: [RESAMPLES]."""
    images: TestImages


def drawn(cell: Cell, metric: str | None = None) -> Drawn | None:
    """The scores of a cell's finished seeds on resampled test images, by default for the metric of its table; computed
    once.

    None where predictions are missing, of other images or damaged (the damage is noted in the cell), and for a metric
    that is not resampled.
    """
    key = metric or cell.metric, tuple(cell.results)
    if key not in cell.drawn:
        found, groups = cell.predictions, cell.groups.by_key if cell.groups else {}
        whole = bool(found) and len(found) == len(cell.results)
        cell.drawn[key] = draw(found, cell.spec.dataset.name, key[0], cell.task, groups) if whole else None
    known: Drawn | None = cell.drawn[key]
    return known


def draw(
    seeds: Mapping[int, Predictions], dataset: str, metric: str, task: str, groups: Mapping[str, str]
) -> Drawn | None:
    """`drawn` of predictions by seed. groups: of the images that have one, by key."""
    first = next(iter(seeds.values()))
    if any(predictions.keys != first.keys for predictions in seeds.values()):
        return None
    images = test_images(dataset, first.keys, groups)
    scores = resampled(list(seeds.values()), metric, task, images)
    return None if scores is None else Drawn(dict(zip(seeds, scores, strict=True)), images)


def resampled(seeds: Sequence[Predictions], metric: str, task: str, images: TestImages) -> list[np.ndarray] | None:
    """The scores [RESAMPLES] of each of some predictions of the same images on the same draws; None as `drawn`.

    NaN where a draw does not define the metric: an AUROC needs images of two kinds.
    """
    if images.units < 2:
        return None
    if metric == "auroc":
        blocks = [weights[:, images.unit] for weights in _weights(images)]
        return [np.concatenate([resampled_auroc(block, p.targets > 0.5, p.scores) for block in blocks]) for p in seeds]
    summed = [summed_metric(metric, each.targets, each.scores, task) for each in seeds]
    known = [each for each in summed if each is not None]
    if len(known) < len(seeds):
        return None
    sums = drawn_sums(np.concatenate([each.parts for each in known], axis=1), images)
    each_sums = np.split(sums, len(known), axis=1)
    return [metric.score(part) for metric, part in zip(known, each_sums, strict=True)]


def drawn_sums(parts: np.ndarray, images: TestImages) -> np.ndarray:
    """The sums [RESAMPLES, k] of parts float32 [n, k] over each draw of the images."""
    if images.units < len(images.unit):
        of_units = np.zeros((images.units, parts.shape[1]), dtype=np.float32)
        np.add.at(of_units, images.unit, parts)
        parts = of_units
    return np.concatenate([weights @ parts for weights in _weights(images)]).astype(np.float64)


def test_images(dataset: str, keys: Sequence[str], groups: Mapping[str, str]) -> TestImages:
    """The images of these keys; those of one group are one unit, an image without a group is a unit of its own."""
    units = Units.of_images(keys, groups)
    return TestImages(derive("test images", dataset, *keys), units.of, len(units.names))


def _weights(images: TestImages) -> Iterator[np.ndarray]:
    """How often each unit is drawn: float32 [b, units], in blocks of `RESAMPLES` rows together."""
    rows = max(1, BLOCK // images.units)
    for start in range(0, RESAMPLES, rows):
        yield _block(images.seed, images.units, start, min(rows, RESAMPLES - start))


@functools.lru_cache(maxsize=2)
def _block(seed: int, units: int, start: int, rows: int) -> np.ndarray:
    """Draws of units − 1 units, with replacement: their mean varies as that of the units themselves does (McCarthy and
    Snowden, 1985), where draws of as many as there are vary too little."""
    rng = np.random.default_rng([seed, start])
    picked = rng.integers(0, units, (rows, units - 1)) + np.arange(rows)[:, None] * units
    counts = np.bincount(picked.reshape(-1), minlength=rows * units)
    return counts.reshape(rows, units).astype(np.float32)


def cell_interval(cell: Cell, metric: str | None = None) -> tuple[float, float] | None:
    """The 95 % interval of a cell's mean score when its test images are resampled and its seeds are not.

    None as `drawn`.
    """
    found = drawn(cell, metric)
    return None if found is None else interval(list(found.scores.values()))


def interval(scores: Sequence[np.ndarray]) -> tuple[float, float] | None:
    """The 95 % interval of the mean over seeds of resampled scores [RESAMPLES]; None where no draw defines it."""
    means = np.mean(scores, axis=0)
    means = means[~np.isnan(means)]
    if not len(means):
        return None
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


# --- Metrics ---------------------------------------------------------------------------------------------------------


def resampled_auroc(counts: np.ndarray, truth: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """The macro AUROC of each resample: the mean over the classes that have both kinds of images in it; else NaN.

    The share of pairs of an image of the class and another one that the scores put in order, ties by half.
    """
    areas = np.full((len(counts), truth.shape[1]), np.nan)
    for number in range(truth.shape[1]):
        of, ranks = truth[:, number], np.unique(scores[:, number], return_inverse=True)[1]
        within, others = counts[:, of], counts[:, ~of]  # [b, positives], [b, negatives]
        at = np.argsort(ranks[~of], kind="stable")
        below = np.cumsum(others[:, at], axis=1)
        below = np.concatenate([np.zeros((len(counts), 1)), below], axis=1)
        left, right = (np.searchsorted(ranks[~of][at], ranks[of], side=side) for side in ("left", "right"))
        ordered = (within * (below[:, left] + below[:, right])).sum(axis=1) / 2
        pairs = within.sum(axis=1) * below[:, -1]
        np.divide(ordered, pairs, out=areas[:, number], where=pairs > 0)
    defined = ~np.isnan(areas)
    out = np.full(len(counts), np.nan)
    np.divide(np.nansum(areas, axis=1), defined.sum(axis=1), out=out, where=defined.any(axis=1))
    return out
