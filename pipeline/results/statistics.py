"""How certain a score or a difference is: paired tests over seeds, Holm's correction, bootstrap intervals."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.results.collect import Cell
from pipeline.runs.predictions import Predictions

MIN_SEEDS = 3  # ASSUMED: a t-test of fewer pairs says nothing
RESAMPLES = 1000
NO_SPREAD = 1e-12  # of scores in [0, 1], whose differences are rounded at 1e-16
BOOTSTRAP_SEED = 2022


@dataclass(frozen=True)
class Paired:
    """The differences between two cells, over the seeds that both have."""

    mean: float
    deviation: float | None
    n: int
    p: float | None
    """Two-sided, from a paired t-test; None for fewer than `MIN_SEEDS` seeds and for differences that are all equal."""


def paired(ours: Mapping[int, float], theirs: Mapping[int, float]) -> Paired | None:
    """ours − theirs (scores by seed), seed by seed; None without a common seed."""
    seeds = sorted(ours.keys() & theirs.keys())
    if not seeds:
        return None
    differences = np.array([ours[seed] - theirs[seed] for seed in seeds])
    n = len(seeds)
    deviation = float(differences.std(ddof=1)) if n > 1 else None
    p = _paired_p_value(differences) if n >= MIN_SEEDS else None
    return Paired(float(differences.mean()), deviation, n, p)


def _paired_p_value(differences: np.ndarray) -> float | None:
    """None for differences that are all equal but for rounding: a t-test of no spread says nothing."""
    spread = differences.std(ddof=1) / math.sqrt(len(differences))
    if spread <= NO_SPREAD:
        return None
    from scipy import stats

    return float(2 * stats.t.sf(abs(differences.mean()) / spread, df=len(differences) - 1))


def t_interval(values: Sequence[float], level: float = 0.95) -> tuple[float, float] | None:
    """The confidence interval of the mean by Student's t; None for fewer than `MIN_SEEDS` values."""
    if len(values) < MIN_SEEDS:
        return None
    from scipy import stats

    array = np.asarray(values)
    half = float(stats.t.ppf((1 + level) / 2, df=len(array) - 1) * array.std(ddof=1) / math.sqrt(len(array)))
    return float(array.mean()) - half, float(array.mean()) + half


def holm(ps: Sequence[float | None]) -> list[float | None]:
    """p values corrected for their number (Holm, 1979); a None stays None and is not counted."""
    order = sorted((p, i) for i, p in enumerate(ps) if p is not None)
    out: list[float | None] = [None] * len(ps)
    highest = 0.0
    for rank, (p, i) in enumerate(order):
        highest = max(highest, min(1.0, p * (len(order) - rank)))
        out[i] = highest
    return out


# --- Bootstrap -------------------------------------------------------------------------------------------------------

ResampledScore = Callable[[np.ndarray], np.ndarray]
"""From counts [b, n], how often each of b resamples draws each of n images, to the scores [b]."""


def cell_interval(cell: Cell, metric: str | None = None) -> tuple[float, float] | None:
    """`bootstrap_interval` of a cell's finished seeds for a metric, by default that of its table.

    None where predictions are missing or damaged.
    """
    found = list(cell.predictions.values())
    if not found or len(found) < len(cell.results):
        return None
    groups = cell.groups.by_key if cell.groups else {}
    return bootstrap_interval(found, metric or cell.metric, cell.task, groups)


def bootstrap_interval(
    seeds: Sequence[Predictions], metric: str, task: str, groups: Mapping[str, str] | None = None
) -> tuple[float, float] | None:
    """The 95 % interval of a cell's mean score when its test images are resampled; the seeds are not.

    seeds: the predictions of every seed, all of the same test images. groups: the patient or lesion of images, by key;
    the images of one are drawn together, an image without one by itself. None where the seeds' images differ.
    """
    if not seeds or any(predictions.keys != seeds[0].keys for predictions in seeds):
        return None
    units = units_of(seeds[0].keys, groups or {})
    n = int(units.max()) + 1
    drawn = np.random.default_rng(BOOTSTRAP_SEED).multinomial(n, np.full(n, 1 / n), size=RESAMPLES)
    counts = drawn[:, units]  # [b, images]
    scores = []
    for predictions in seeds:
        score = resampled_score(metric, predictions.targets, predictions.scores, task)
        if score is None:
            return None
        scores.append(score(counts.astype(np.float64)))
    means = np.mean(scores, axis=0)
    means = means[~np.isnan(means)]  # an AUROC needs two kinds of images
    if not len(means):
        return None
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def units_of(keys: Sequence[str], groups: Mapping[str, str]) -> np.ndarray:
    """The number of what each image is drawn with: int64 [n], from 0 without gaps, in the order of first images."""
    known: dict[tuple[str, bool], int] = {}
    names = [(groups[key], True) if key in groups else (key, False) for key in keys]
    return np.array([known.setdefault(name, len(known)) for name in names], dtype=np.int64)


def resampled_score(metric: str, targets: np.ndarray, scores: np.ndarray, task: str) -> ResampledScore | None:
    """A metric of `learn.metrics` as a function of image counts; None for a metric that has no such form here.

    targets, scores: [n, classes].
    """
    truth = targets > 0.5
    predicted = scores > 0.5
    if metric not in ("f1_micro", "recall_micro") and task == "multi-class":
        predicted = np.eye(scores.shape[1], dtype=bool)[scores.argmax(axis=1)]
    hit, wrong, missed = ((truth & predicted), (predicted & ~truth), (truth & ~predicted))
    hits, wrongs, misses = (part.astype(np.float64) for part in (hit, wrong, missed))  # [n, classes] each

    def total(counts: np.ndarray, part: np.ndarray) -> np.ndarray:
        return np.asarray(counts @ part.sum(axis=1))

    def f1(counts: np.ndarray) -> np.ndarray:
        return _ratio(2 * total(counts, hits), 2 * total(counts, hits) + total(counts, wrongs) + total(counts, misses))

    def f1_macro(counts: np.ndarray) -> np.ndarray:
        twice = 2 * counts @ hits
        return np.asarray(_ratio(twice, twice + counts @ wrongs + counts @ misses).mean(axis=1))

    def recall(counts: np.ndarray) -> np.ndarray:
        return _ratio(total(counts, hits), total(counts, hits) + total(counts, misses))

    def balanced(counts: np.ndarray) -> np.ndarray:
        present = counts @ truth  # [b, classes]
        recalls = np.where(present > 0, _ratio(counts @ hits, present), np.nan)
        return np.asarray(np.nanmean(recalls, axis=1))

    def accuracy(counts: np.ndarray) -> np.ndarray:
        exact: np.ndarray = (truth == predicted).all(axis=1)
        return _ratio(counts @ exact, counts.sum(axis=1))

    known: dict[str, ResampledScore] = {
        "f1_micro": f1,
        "recall_micro": recall,
        "f1_macro": f1_macro,
        "balanced_accuracy": balanced,
        "accuracy": accuracy,
        "auroc": lambda counts: resampled_auroc(counts, truth, scores),
    }
    return known.get(metric)


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


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """part / whole, and 0 where whole is 0."""
    out = np.zeros_like(part, dtype=np.float64)
    np.divide(part, whole, out=out, where=whole > 0)
    return out
