"""A difference between two techniques, and whether both seeds and test images show it.

Seeds share one split and one test set, so an interval over seeds is conditional on them; one over seeds and test images
together is not. A difference is found where both lie off zero (docs/decisions/0022).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.core.console import counted
from pipeline.core.seeds import derive
from pipeline.results.bootstrap import Drawn, drawn
from pipeline.results.collect import Cell
from pipeline.results.statistics import MIN_SEEDS, NO_SPREAD, Estimate, estimate, holm
from pipeline.runs.methods import CONTROLS, method_info

COMPARED = {
    method_info("cass").title: ("DINO", "Supervised", *(method_info(name).title for name in CONTROLS)),
    method_info("cass_vc").title: (method_info("cass").title, "Supervised"),
}
"""The techniques of the comparison, and those that each is compared with."""


@dataclass(frozen=True)
class Difference:
    """The mean over some pairs of cells of one technique's score minus another's, over the seeds that all have."""

    mean: float
    deviation: float | None
    """The sample standard deviation over seeds."""
    cells: int
    """Pairs of cells."""
    seeds: int
    images: int
    """Test images, of all datasets together."""
    units: int
    """What is drawn of them: groups where they are known."""
    over_seeds: Estimate | None
    """None for fewer than `MIN_SEEDS` seeds, and where all of them differ by the same."""
    over_both: Estimate | None
    """By drawing seeds and test images together; None for fewer than `MIN_SEEDS` seeds, where predictions are missing,
    and where neither varies."""

    @property
    def _estimates(self) -> list[Estimate]:
        return [each for each in (self.over_seeds, self.over_both) if each is not None]

    @property
    def decided(self) -> bool:
        """Whether there are both intervals."""
        return len(self._estimates) == 2

    @property
    def range(self) -> tuple[float, float] | None:
        """What holds both intervals; None where one is missing."""
        if not self.decided:
            return None
        lows, highs = zip(*(each.interval for each in self._estimates), strict=True)
        return min(lows), max(highs)

    @property
    def p(self) -> float | None:
        """Two-sided: the larger of both tests'; None where one is missing."""
        return max(each.p for each in self._estimates) if self.decided else None

    @property
    def detectable(self) -> float | None:
        """The smallest difference that both intervals would show with a chance of 80 %."""
        return max(each.detectable for each in self._estimates) if self.decided else None

    @property
    def undecided(self) -> str:
        """Why there are not both intervals; empty where there are."""
        if self.seeds < MIN_SEEDS:
            return f"fewer than {MIN_SEEDS} seeds"
        if self.over_seeds is None:
            return "all seeds differ by the same, so they show no spread"
        return "" if self.decided else "predictions that can be compared are missing"

    @property
    def evidence(self) -> str:
        """`5 seeds and 2,533 test images`, or with the number of groups."""
        images = counted(self.images, "test image")
        if self.units < self.images:
            images += f" in {counted(self.units, 'group')}"
        return f"{counted(self.seeds, 'seed')} and {images}" if self.images else counted(self.seeds, "seed")


def difference(pairs: Sequence[tuple[Cell, Cell]]) -> Difference | None:
    """Ours minus theirs of each pair, seed by seed; None without a seed that all cells have finished."""
    scores = [(ours.scores(ours.metric), theirs.scores(theirs.metric)) for ours, theirs in pairs]
    if not scores:
        return None
    seeds = sorted(set.intersection(*(set(ours) & set(theirs) for ours, theirs in scores)))
    if not seeds:
        return None
    gains = np.array([np.mean([ours[seed] - theirs[seed] for ours, theirs in scores]) for seed in seeds])
    found = [(drawn(ours), drawn(theirs)) for ours, theirs in pairs] if len(seeds) >= MIN_SEEDS else []
    same = [(a, b) for a, b in found if a and b and a.images.seed == b.images.seed]
    over_both, test_sets = None, {}
    if same and len(same) == len(pairs):
        test_sets = {ours.images.seed: ours.images for ours, _ in same}
        over_both = estimate_both(gains, drawn_gains(same, seeds), min(each.units for each in test_sets.values()))
    return Difference(
        mean=float(gains.mean()),
        deviation=float(gains.std(ddof=1)) if len(seeds) > 1 else None,
        cells=len(pairs),
        seeds=len(seeds),
        images=sum(len(each.unit) for each in test_sets.values()),
        units=sum(each.units for each in test_sets.values()),
        over_seeds=estimate(gains.tolist()),
        over_both=over_both,
    )


def drawn_gains(pairs: Sequence[tuple[Drawn, Drawn]], seeds: Sequence[int]) -> np.ndarray:
    """The gains of each seed on the same draws of the test images: [RESAMPLES, seeds]."""
    each = [[ours.scores[seed] - theirs.scores[seed] for seed in seeds] for ours, theirs in pairs]
    return np.asarray(np.mean(each, axis=0).T)


def estimate_both(gains: np.ndarray, on_draws: np.ndarray, units: int) -> Estimate | None:
    """The mean gain, with the error of drawing seeds and test images together.

    gains [seeds]; on_draws [b, seeds], the gains on draws of the test images; units: how many are drawn there. Of n
    seeds n − 1 are drawn, as `bootstrap` draws test images. The degrees of freedom are Satterthwaite's of both parts:
    where the seeds vary most, the error is known from a few of them only. None where nothing varies.
    """
    n = len(gains)
    picked = np.random.default_rng(derive("seeds", n)).multinomial(n - 1, np.full(n, 1 / n), size=len(on_draws))
    means = (on_draws * picked / (n - 1)).sum(axis=1)
    means = means[~np.isnan(means)]  # draws that do not define the metric
    error = float(means.std(ddof=1)) if len(means) > 1 else 0.0
    if error <= NO_SPREAD:
        return None
    of_seeds = min(1.0, float(gains.var(ddof=1)) / n / error**2)
    freedom = 1 / (of_seeds**2 / (n - 1) + (1 - of_seeds) ** 2 / (units - 1))
    return Estimate(float(gains.mean()), error, freedom)


# --- Techniques compared ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Comparison:
    """One technique minus another on the same dataset, network and labels."""

    cell: Cell
    other: Cell
    difference: Difference | None
    p: float | None
    """Holm's, over all comparisons of the grid."""

    @property
    def name(self) -> str:
        """`CASS − DINO`."""
        return f"{self.cell.row[0]} − {self.other.row[0]}"

    @property
    def printed(self) -> float | None:
        """The difference of the printed values; None unless the grid repeats both."""
        both = self.cell.printed, self.other.printed
        return both[0].value - both[1].value if both[0] and both[1] else None

    @property
    def found(self) -> bool:
        """Whether both intervals are off zero."""
        ends = self.difference.range if self.difference else None
        return ends is not None and (ends[0] > 0 or ends[1] < 0)


def comparisons(cells: Sequence[Cell]) -> list[Comparison]:
    """Techniques and those that each is compared with (`COMPARED`), in the main experiment and in plain lists of runs.

    Where a list has several recipes of one technique, nothing says which is meant, and it is left out.
    """
    members = [cell for cell in cells if cell.experiment in ("main", "plain") and len(cell.row) == 2]
    by_place: dict[tuple[str, ...], list[Cell]] = {}
    for cell in members:
        by_place.setdefault(_place(cell, cell.row[0]), []).append(cell)
    alone = {place: found[0] for place, found in by_place.items() if len(found) == 1}
    pairs = [
        (cell, other, difference([(cell, other)]))
        for cell in alone.values()
        for technique in COMPARED.get(cell.row[0], ())
        if (other := alone.get(_place(cell, technique)))
    ]
    corrected = holm([found.p if found else None for _, _, found in pairs])
    return [Comparison(cell, other, made, p) for (cell, other, made), p in zip(pairs, corrected, strict=True)]


def _place(cell: Cell, technique: str) -> tuple[str, ...]:
    return cell.experiment, cell.dataset, technique, cell.backbone, cell.column
