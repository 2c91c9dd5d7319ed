"""How certain a mean is: Student's t, the smallest difference that would be found, and Holm's correction."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

MIN_SEEDS = 3  # ASSUMED: a t-test of fewer values says nothing
NO_SPREAD = 1e-12  # of scores in [0, 1], whose differences are rounded at 1e-16
LEVEL = 0.95
POWER = 0.8


@dataclass(frozen=True)
class Estimate:
    """A mean with its standard error, read by Student's t."""

    mean: float
    error: float
    """The standard error, above `NO_SPREAD`."""
    freedom: float
    """The degrees of freedom of the error."""

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % confidence interval."""
        half = _quantile((1 + LEVEL) / 2, self.freedom) * self.error
        return self.mean - half, self.mean + half

    @property
    def p(self) -> float:
        """Two-sided, of a mean of zero."""
        from scipy import stats

        return float(2 * stats.t.sf(abs(self.mean) / self.error, df=self.freedom))

    @property
    def detectable(self) -> float:
        """The smallest true mean whose interval would be off zero with a chance of 80 %, given this error."""
        return (_quantile((1 + LEVEL) / 2, self.freedom) + _quantile(POWER, self.freedom)) * self.error


def _quantile(level: float, freedom: float) -> float:
    from scipy import stats

    return float(stats.t.ppf(level, df=freedom))


def estimate(values: Sequence[float]) -> Estimate | None:
    """The mean of independent values; None for fewer than `MIN_SEEDS`, and for values that are all equal but for
    rounding: a t-test of no spread says nothing."""
    if len(values) < MIN_SEEDS:
        return None
    array = np.asarray(values)
    error = float(array.std(ddof=1)) / math.sqrt(len(array))
    return Estimate(float(array.mean()), error, len(array) - 1) if error > NO_SPREAD else None


def holm(ps: Sequence[float | None]) -> list[float | None]:
    """p values corrected for their number (Holm, 1979); a None stays None and is not counted."""
    order = sorted((p, i) for i, p in enumerate(ps) if p is not None)
    out: list[float | None] = [None] * len(ps)
    highest = 0.0
    for rank, (p, i) in enumerate(order):
        highest = max(highest, min(1.0, p * (len(order) - rank)))
        out[i] = highest
    return out
