"""A verdict on each claim of the paper's abstract, from finished runs alone.

The paper does not say what counts as holding; the thresholds below are ASSUMED. A verdict says where the runs are too
few to decide.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from pipeline.core.console import counted
from pipeline.jobs.plan import Plan
from pipeline.results import texts
from pipeline.results.collect import Cell
from pipeline.results.statistics import MIN_SEEDS, t_interval
from pipeline.results.times import pretraining_seconds
from pipeline.study import paper

STEADY = 0.01  # "a change of less than a percentage" (C.1)
STEEP = 0.03  # a drop that would be called steep (C.2 names no number)
HOLDS, FAILS = "holds", "does not hold"
OPEN, UNTESTED = "not enough evidence", "not tested"
NO_RUN = "this grid has no run for this claim"
TOO_FEW = f"{OPEN} (fewer than {MIN_SEEDS} seeds)"


@dataclass(frozen=True)
class Verdict:
    """A claim, what the paper prints for it, what our runs give, and whether it holds."""

    claim: str
    printed: str
    ours: str
    verdict: str
    """`HOLDS`, `FAILS`, `UNTESTED`, or `OPEN` and why."""


def verdicts(plan: Plan, cells: Sequence[Cell]) -> list[Verdict]:
    """One verdict for each claim: gains by label fraction, time saved, robustness to batch size and epochs."""
    main = [cell for cell in cells if cell.experiment == "main"]
    out = []
    for fraction, claimed in paper.CLAIMED_GAINS.items():
        for other in ("DINO", "Supervised"):
            out.append(_gain(main, fraction, claimed, other))
    out.append(_saving(plan, main))
    out.append(_robustness(cells, "batch_size", "a change of batch size", "varies", _span, STEADY))
    out.append(_robustness(cells, "epochs", "fewer epochs", "drops", _drop, STEEP))
    return out


def _gain(main: Sequence[Cell], fraction: str, claimed: float, other: str) -> Verdict:
    """The mean over datasets and backbones of CASS minus the other technique, and its interval over seeds."""
    rival = "supervised training" if other == "Supervised" else other
    claim = f"CASS gains over {rival} with {fraction} of the labels"
    found = {(c.dataset, c.arm, c.row[0]): c for c in main if c.column == fraction}
    pairs = [
        (ours, theirs)
        for (dataset, arm, technique), ours in found.items()
        if technique == "CASS" and (theirs := found.get((dataset, arm, other)))
    ]
    in_paper = [ours.printed.value - theirs.printed.value for ours, theirs in pairs if ours.printed and theirs.printed]
    printed = "–"
    if in_paper:
        printed = f"{_points(claimed)} claimed; its own tables give {_points(statistics.fmean(in_paper))}"
    if not pairs:
        return Verdict(claim, printed, NO_RUN, UNTESTED)
    scores = [(ours.scores(ours.metric), theirs.scores(theirs.metric)) for ours, theirs in pairs]
    seeds = set.intersection(*(set(ours) & set(theirs) for ours, theirs in scores))
    if not seeds:
        text = f"no seed has finished all {2 * len(pairs)} runs of this comparison yet"
        return Verdict(claim, printed, text, OPEN)
    gains = [statistics.fmean(ours[seed] - theirs[seed] for ours, theirs in scores) for seed in sorted(seeds)]
    interval = t_interval(gains)
    text = f"{_points(statistics.fmean(gains))} over {counted(len(pairs), 'cell')}, {counted(len(gains), 'seed')}"
    if interval is None:
        return Verdict(claim, printed, text, TOO_FEW)
    low, high = interval
    text += f", 95 % interval {_points(low)} to {_points(high)}"
    verdict = HOLDS if low > 0 else FAILS if high < 0 else f"{OPEN} (the interval contains zero)"
    return Verdict(claim, printed, text, verdict)


def _saving(plan: Plan, main: Sequence[Cell]) -> Verdict:
    """The mean over datasets of the time that CASS saves against DINO of both networks."""
    claim = "CASS takes less time than DINO"
    printed = f"{paper.CLAIMED_SAVING:.0%} less"
    seconds = pretraining_seconds(plan, main)
    savings = {}
    for dataset in dict.fromkeys(cell.dataset for cell in main):
        keys = [(dataset, "cass", ""), (dataset, "dino", paper.CNN), (dataset, "dino", paper.TRANSFORMER)]
        if all(seconds.get(key) for key in keys):
            cass, cnn, transformer = (statistics.fmean(seconds[key]) for key in keys)
            savings[dataset] = 1 - cass / (cnn + transformer)
    if not {"cass", "dino"} <= {cell.method for cell in main}:
        return Verdict(claim, printed, NO_RUN, UNTESTED)
    if not savings:
        ours = "no dataset has finished pretraining with CASS and with DINO of both networks yet"
        return Verdict(claim, printed, ours, OPEN)
    mean = statistics.fmean(savings.values())
    ours = f"{abs(mean):.0%} {'less' if mean >= 0 else 'more'}, mean of {', '.join(savings)}"
    return Verdict(claim, printed, ours, HOLDS if min(savings.values()) > 0 else FAILS)


def _robustness(
    cells: Sequence[Cell],
    experiment: str,
    change: str,
    verb: str,
    measure: Callable[[list[float]], float],
    limit: float,
) -> Verdict:
    """How much the better arm of each dataset changes over the settings of an experiment, by `measure`."""
    claim = f"CASS is robust to {change}"
    members = [cell for cell in cells if cell.experiment == experiment]
    changes, in_paper = {}, {}
    for dataset in dict.fromkeys(cell.dataset for cell in members):
        arms: dict[str, list[Cell]] = {}
        for cell in members:
            if cell.dataset == dataset:
                arms.setdefault(cell.column, []).append(cell)
        printed = [[cell.printed.value for cell in arm if cell.printed] for arm in arms.values()]
        if all(printed):
            in_paper[dataset] = measure(max(printed, key=statistics.fmean))
        means = [[mean for cell in arm if (mean := cell.mean(cell.metric)) is not None] for arm in arms.values()]
        if [len(arm) for arm in means] == [len(arm) for arm in arms.values()]:
            changes[dataset] = measure(max(means, key=statistics.fmean))
    printed_text = _by_dataset(in_paper) or "–"
    if not members:
        return Verdict(claim, printed_text, NO_RUN, UNTESTED)
    if not changes:
        return Verdict(claim, printed_text, "no dataset has finished a run of every setting yet", OPEN)
    ours = f"the better arm {verb} by {_by_dataset(changes)}"
    if min(len(cell.values(cell.metric)) for cell in members if cell.dataset in changes) < MIN_SEEDS:
        return Verdict(claim, printed_text, ours, TOO_FEW)
    return Verdict(claim, printed_text, ours, HOLDS if max(changes.values()) <= limit else FAILS)


def _points(difference: float) -> str:
    return texts.signed(difference, ".1%")


def _by_dataset(values: Mapping[str, float]) -> str:
    return ", ".join(f"{value:.4f} ({dataset})" for dataset, value in values.items())


def _span(values: list[float]) -> float:
    return max(values) - min(values)


def _drop(values: list[float]) -> float:
    """From the standard 100 epochs, the second setting, down to 50, the first."""
    return values[1] - values[0] if len(values) > 1 else 0.0
