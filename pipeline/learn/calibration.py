"""Scores as probabilities: a temperature fitted on validation, and how far scores are from what happens (ECE).

Guo et al. 2017 (arXiv 1706.04599). Where an image has one class, its probabilities are the softmax of the logits over
the temperature; where it may have several, each is a sigmoid. Neither changes which class has the highest score.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

BINS = 15  # of equal width, as in Guo et al.
LIMITS = (0.05, 20.0)  # ASSUMED: a temperature beyond them says that validation had too few images to fit one
SURE = 2.0**-24  # a stored score is a float32: one this close to 0 or 1 may have been any closer


def fit(logits: np.ndarray, targets: np.ndarray, task: str) -> float:
    """The temperature within `LIMITS` with the least negative log-likelihood; logits, targets [n, classes], n > 0."""
    from scipy.optimize import minimize_scalar

    exact = logits.astype(np.float64)

    def loss(log_temperature: float) -> float:
        return negative_log_likelihood(exact / np.exp(log_temperature), targets, task)

    found = minimize_scalar(loss, bounds=np.log(LIMITS), method="bounded", options={"xatol": 1e-6})
    return min(float(np.exp(found.x)), *LIMITS, key=lambda temperature: loss(np.log(temperature)))


def undetermined(temperature: float) -> str:
    """That a temperature is one of `LIMITS`, for a sentence on it; else empty."""
    return "" if temperature not in LIMITS else "; it is at its limit: validation had too few images, or no errors"


def negative_log_likelihood(logits: np.ndarray, targets: np.ndarray, task: str) -> float:
    """The mean over images (multi-label: over images and classes) of −log of the probability of what is true."""
    if task == "multi-class":
        top = logits.max(axis=1, keepdims=True)
        log_sum = np.log(np.exp(logits - top).sum(axis=1)) + top[:, 0]
        return float((log_sum - (logits * targets).sum(axis=1)).mean())
    return float((np.logaddexp(0, logits) - logits * targets).mean())


def probabilities(logits: np.ndarray, temperature: float, task: str) -> np.ndarray:
    """The calibrated scores for logits [n, classes]: float64 [n, classes]."""
    scaled = logits.astype(np.float64) / temperature
    if task == "multi-class":
        raised = np.exp(scaled - scaled.max(axis=1, keepdims=True))
        return np.asarray(raised / raised.sum(axis=1, keepdims=True))
    return np.asarray(np.exp(-np.logaddexp(0, -scaled)))


def logits_of(scores: np.ndarray) -> np.ndarray:
    """The logits of stored sigmoids: float64, at most 16.6 from zero."""
    kept = np.clip(scores.astype(np.float64), SURE, 1 - SURE)
    return np.asarray(np.log(kept / (1 - kept)))


@dataclass(frozen=True)
class Reliability:
    """Scores in `BINS` bins of equal width, next to how often what they say is true; each value [BINS]."""

    count: np.ndarray
    score: np.ndarray
    """The sum of the scores in a bin."""
    true: np.ndarray
    """How many of them were right."""

    @property
    def ece(self) -> float:
        """The expected calibration error: the mean over scores of what their bin's mean is off by."""
        return float(np.abs(self.score - self.true).sum() / self.count.sum())

    def __add__(self, other: Reliability) -> Reliability:
        return Reliability(self.count + other.count, self.score + other.score, self.true + other.true)


def reliability(scores: np.ndarray, targets: np.ndarray, task: str) -> Reliability:
    """How right scores [n, classes] are: the highest of each image; where there may be several classes, every one."""
    if task == "multi-class":
        rows, best = np.arange(len(scores)), scores.argmax(axis=1)
        scores, targets = scores[rows, best], targets[rows, best]
    values, happened = scores.astype(np.float64).ravel(), targets.ravel().astype(np.float64)
    bins = np.minimum((values * BINS).astype(np.int64), BINS - 1)
    count, score, true = (np.bincount(bins, part, BINS) for part in (None, values, happened))
    return Reliability(count, score, true)
