"""Whether a difference is more than chance: paired tests over seeds, Holm's correction, bootstrap intervals."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.results.collect import Cell

LEAST_SEEDS = 3  # ASSUMED: a t-test of fewer pairs says nothing
RESAMPLES = 1000
BOOTSTRAP_SEED = 2022


@dataclass(frozen=True)
class Paired:
    """The difference of two cells over the seeds that both have."""

    mean: float
    deviation: float | None
    n: int
    p: float | None
    """Two-sided, of a paired t-test; None for fewer than three seeds."""


def paired(ours: Mapping[int, float], theirs: Mapping[int, float]) -> Paired | None:
    """ours − theirs, seed by seed; None without a common seed."""
    seeds = sorted(ours.keys() & theirs.keys())
    if not seeds:
        return None
    differences = np.array([ours[seed] - theirs[seed] for seed in seeds])
    n = len(seeds)
    deviation = float(differences.std(ddof=1)) if n > 1 else None
    return Paired(float(differences.mean()), deviation, n, _p(differences) if n >= LEAST_SEEDS else None)


def _p(differences: np.ndarray) -> float:
    spread = differences.std(ddof=1) / math.sqrt(len(differences))
    if spread == 0:
        return 0.0 if differences.any() else 1.0
    from scipy import stats

    return float(2 * stats.t.sf(abs(differences.mean()) / spread, df=len(differences) - 1))


def t_interval(values: Sequence[float], level: float = 0.95) -> tuple[float, float] | None:
    """The confidence interval of the mean by Student's t; None for fewer than three values."""
    if len(values) < LEAST_SEEDS:
        return None
    from scipy import stats

    array = np.asarray(values)
    half = float(stats.t.ppf((1 + level) / 2, df=len(array) - 1) * array.std(ddof=1) / math.sqrt(len(array)))
    return float(array.mean()) - half, float(array.mean()) + half


def holm(ps: Sequence[float | None]) -> list[float | None]:
    """p values corrected for their number (Holm, 1979); those that are None are left out of it."""
    order = sorted((p, i) for i, p in enumerate(ps) if p is not None)
    out: list[float | None] = [None] * len(ps)
    highest = 0.0
    for rank, (p, i) in enumerate(order):
        highest = max(highest, min(1.0, p * (len(order) - rank)))
        out[i] = highest
    return out


# --- Bootstrap -------------------------------------------------------------------------------------------------------

Weighted = Callable[[np.ndarray], np.ndarray]
"""Scores [b] of b resamples, each given by how often it draws every image: counts [b, n]."""


def of_cell(cell: Cell) -> tuple[float, float] | None:
    """`interval` of a cell's finished seeds for the metric of its table."""
    files = [cell.runs[seed]["predictions"] for seed in cell.results]
    if not files or not all(path.exists() for path in files):
        return None
    single = all(result.metrics.get("majority") for result in cell.results.values())  # multi-label has none
    return interval(files, cell.metric, "multi-class" if single else "multi-label")


def interval(predictions: Sequence[Path], metric: str, task: str) -> tuple[float, float] | None:
    """The 95 % interval of a cell's mean score over resampled test images, the seeds as they are.

    predictions: one predictions.parquet a seed, of the same test images. None for a metric that is not resampled
    (AUROC) and where the files differ in their images.
    """
    tables = [read_predictions(path) for path in predictions]
    if not tables or any(table[0] != tables[0][0] for table in tables):
        return None
    n = len(tables[0][0])
    counts = np.random.default_rng(BOOTSTRAP_SEED).multinomial(n, np.full(n, 1 / n), size=RESAMPLES)  # [b, n]
    scores = []
    for _, targets, found in tables:
        score = weighted(metric, targets, found, task)
        if score is None:
            return None
        scores.append(score(counts.astype(np.float64)))
    low, high = np.percentile(np.mean(scores, axis=0), [2.5, 97.5])
    return float(low), float(high)


def read_predictions(path: Path) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Keys, targets [n, classes] and scores [n, classes] of a run's test images."""
    import pyarrow.parquet as parquet

    table = parquet.read_table(path)
    names = [name.removeprefix("true:") for name in table.column_names if name.startswith("true:")]
    columns = ([table[f"{kind}:{name}"].to_numpy() for name in names] for kind in ("true", "score"))
    targets, scores = (np.stack(list(part), axis=1) for part in columns)
    return table["key"].to_pylist(), targets, scores


def weighted(metric: str, targets: np.ndarray, scores: np.ndarray, task: str) -> Weighted | None:
    """A metric of `learn.metrics` as a function of image counts; None for one that has no such form here."""
    truth = targets > 0.5
    said = scores > 0.5
    if metric not in ("f1_micro", "recall_micro") and task == "multi-class":
        said = np.eye(scores.shape[1], dtype=bool)[scores.argmax(axis=1)]
    hit, wrong, missed = ((truth & said), (said & ~truth), (truth & ~said))
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
        exact: np.ndarray = (truth == said).all(axis=1)
        return _ratio(counts @ exact, counts.sum(axis=1))

    known: dict[str, Weighted] = {
        "f1_micro": f1,
        "recall_micro": recall,
        "f1_macro": f1_macro,
        "balanced_accuracy": balanced,
        "accuracy": accuracy,
    }
    return known.get(metric)


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """part / whole, 0 where the whole is."""
    out = np.zeros_like(part, dtype=np.float64)
    np.divide(part, whole, out=out, where=whole > 0)
    return out
