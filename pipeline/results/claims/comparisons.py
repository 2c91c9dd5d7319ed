"""Verdicts from differences: one that should be above or below zero, and those that should stay within a limit.

The paper does not say what counts as holding; the thresholds below are ASSUMED.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pipeline.core.console import counted
from pipeline.results.claims.verdict import FAILS, HOLDS, OPEN, points
from pipeline.results.collect import Cell
from pipeline.results.differences import Difference, difference

STEADY = 0.01  # "a change of less than a percentage" (C.1)
STEEP = 0.03  # a drop that would be called steep (C.2 names no number)

Pair = tuple[Cell, Cell]
"""Cells of which the second's scores are subtracted from the first's."""
Judged = tuple[str, str, str]
"""Our numbers as text, the outcome, and why."""


def described(found: Difference) -> str:
    """`+1.2% over 2 cells, 95 % interval -0.4% to +2.9%; 5 seeds and 2,533 test images would show 2.1%`."""
    text = f"{points(found.mean)} over {counted(found.cells, 'cell')}"
    if found.range is None or found.detectable is None:
        return f"{text}, {found.evidence}"
    low, high = found.range
    text += f", 95 % interval {points(low)} to {points(high)}"
    return f"{text}; {found.evidence} would show {found.detectable:.1%}"


def missing_runs(pairs: Sequence[Pair]) -> Judged:
    return f"no seed has finished all {2 * len(pairs)} runs of this comparison yet", OPEN, ""


def above_zero(pairs: Sequence[Pair]) -> Judged:
    """Whether ours are better: both intervals above zero, or below it."""
    found = difference(pairs)
    if found is None:
        return missing_runs(pairs)
    if found.range is None:
        return described(found), OPEN, found.undecided
    low, high = found.range
    if low > 0:
        return described(found), HOLDS, ""
    if high < 0:
        return described(found), FAILS, ""
    return described(found), OPEN, "the interval contains zero"


def below_zero(pairs: Sequence[Pair]) -> Judged:
    """As `above_zero`, of a claim that ours are worse."""
    text, outcome, why = above_zero(pairs)
    return text, {HOLDS: FAILS, FAILS: HOLDS}.get(outcome, outcome), why


def all_below_zero(named: Mapping[str, Sequence[Pair]]) -> Judged:
    """Whether each of several differences, by what it is of, is below zero."""
    each = {name: below_zero(pairs) for name, pairs in named.items()}
    text = "; ".join(f"{name}: {found}" for name, (found, _, _) in each.items())
    outcomes = [outcome for _, outcome, _ in each.values()]
    if FAILS in outcomes:
        return text, FAILS, ""
    if set(outcomes) == {HOLDS}:
        return text, HOLDS, ""
    why = ", ".join(f"{name}: {reason}" for name, (_, outcome, reason) in each.items() if outcome == OPEN and reason)
    return text, OPEN, why


def within(named: Mapping[str, Sequence[Pair]], limit: float, *, drop: bool = False) -> Judged:
    """Whether the differences, by what each is of, stay within a limit; a `drop` is only too large upwards.

    Holds where all intervals are within, fails where one is wholly beyond.
    """
    found = {name: difference(pairs) for name, pairs in named.items()}
    if any(each is None for each in found.values()):
        return missing_runs([pair for pairs in named.values() for pair in pairs])
    known = {name: each for name, each in found.items() if each is not None}
    text = "; ".join(f"{name}: {described(each)}" for name, each in known.items())
    ranges = [each.range for each in known.values() if each.range]
    if any(low > limit or (high < -limit and not drop) for low, high in ranges):
        return text, FAILS, ""
    if undecided := next((each.undecided for each in known.values() if each.range is None), ""):
        return text, OPEN, undecided
    if all(high <= limit and (drop or low >= -limit) for low, high in ranges):
        return text, HOLDS, ""
    return text, OPEN, f"the interval reaches beyond {limit:.0%}"
