"""A verdict on each claim of the paper's abstract, from the finished runs alone; it says when they are not enough.

What counts as holding is ours to choose, the paper names no criterion: the thresholds below are ASSUMED.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pipeline.jobs.plan import Plan
from pipeline.results.collect import Cell
from pipeline.results.statistics import LEAST_SEEDS, t_interval
from pipeline.results.tables import pretraining_seconds
from pipeline.study import paper

STEADY = 0.01  # "a change of less than a percentage" (C.1)
STEEP = 0.03  # a drop that would be called steep (C.2 names no number)
OPEN, HOLDS, FAILS = "not enough evidence", "holds", "does not hold"


@dataclass(frozen=True)
class Verdict:
    """A claim, what the paper prints for it, what ours says, and whether it holds."""

    claim: str
    printed: str
    ours: str
    verdict: str


def verdicts(plan: Plan, cells: Sequence[Cell]) -> list[Verdict]:
    """One verdict a claim: gains by label fraction, time saved, steadiness over batch sizes and epochs."""
    main = [cell for cell in cells if cell.experiment == "main"]
    out = []
    for fraction, claimed in paper.CLAIMED_GAINS.items():
        for other in ("DINO", "Supervised"):
            out.append(_gain(main, fraction, claimed, other))
    out.append(_time(plan, main))
    out.append(_steady(cells, "batch_size", "changing the batch size", _span, STEADY))
    out.append(_steady(cells, "epochs", "fewer epochs", _drop, STEEP))
    return out


def _gain(main: Sequence[Cell], fraction: str, claimed: float, other: str) -> Verdict:
    """The mean over datasets and backbones of CASS minus the other, and its interval over seeds."""
    claim = f"CASS gains with {fraction} of the labels, over {other}"
    here = {(c.dataset, c.arm, c.row[0]): c for c in main if c.column == fraction}
    pairs = [(c, here.get((*key[:2], other))) for key, c in here.items() if key[2] == "CASS"]
    told = [c.printed.value - o.printed.value for c, o in pairs if o and c.printed and o.printed]
    printed = f"{claimed:+.1%} claimed; its own tables come to {statistics.fmean(told):+.1%}" if told else "–"
    whole = [(c.scores(c.metric), o.scores(o.metric)) for c, o in pairs if o]
    seeds = set.intersection(*(set(a) & set(b) for a, b in whole)) if whole else set()
    if not seeds:
        return Verdict(claim, printed, f"no seed has all {2 * len(pairs)} cells", OPEN)
    gains = [statistics.fmean(a[seed] - b[seed] for a, b in whole) for seed in sorted(seeds)]
    interval = t_interval(gains)
    ours = f"{statistics.fmean(gains):+.1%} over {len(whole)} cells, {_seeds(gains)}"
    if interval is None:
        return Verdict(claim, printed, ours, f"{OPEN} (fewer than {LEAST_SEEDS} seeds)")
    ours += f", 95 % {interval[0]:+.1%} to {interval[1]:+.1%}"
    verdict = HOLDS if interval[0] > 0 else FAILS if interval[1] < 0 else f"{OPEN} (the interval holds zero)"
    return Verdict(claim, printed, ours, verdict)


def _time(plan: Plan, main: Sequence[Cell]) -> Verdict:
    """The mean saving over datasets, CASS beside DINO of both networks."""
    seconds = pretraining_seconds(plan, main)
    savings = {}
    for dataset in dict.fromkeys(cell.dataset for cell in main):
        parts = [
            seconds.get((dataset, *key)) for key in (("cass", ""), ("dino", paper.CNN), ("dino", paper.TRANSFORMER))
        ]
        if all(parts):
            cass, cnn, transformer = (statistics.fmean(part) for part in parts if part)
            savings[dataset] = 1 - cass / (cnn + transformer)
    claim = "CASS takes less time than DINO"
    printed = f"{paper.CLAIMED_SAVING:.0%} less"
    if not savings:
        return Verdict(claim, printed, "no dataset has finished CASS and DINO of both networks", OPEN)
    ours = f"{statistics.fmean(savings.values()):.0%} less, mean of {', '.join(savings)}"
    return Verdict(claim, printed, ours, HOLDS if min(savings.values()) > 0 else FAILS)


def _steady(
    cells: Sequence[Cell], experiment: str, what: str, measure: Callable[[list[float]], float], limit: float
) -> Verdict:
    """How far the leading arm of each dataset moves."""
    claim = f"CASS withstands {what}"
    moves, told = {}, {}
    for dataset in dict.fromkeys(cell.dataset for cell in cells if cell.experiment == experiment):
        here = [cell for cell in cells if (cell.experiment, cell.dataset) == (experiment, dataset)]
        columns = {column: [c for c in here if c.column == column] for column in dict.fromkeys(c.column for c in here)}
        printed = {name: [c.printed.value for c in part if c.printed] for name, part in columns.items()}
        if all(printed.values()):
            told[dataset] = measure(max(printed.values(), key=statistics.fmean))
        means = {name: [c.mean(c.metric) for c in part] for name, part in columns.items()}
        found = [[m for m in part if m is not None] for part in means.values()]
        if all(len(part) == len(got) > 0 for part, got in zip(means.values(), found, strict=True)):
            moves[dataset] = measure(max(found, key=statistics.fmean))
    printed_text = ", ".join(f"{value:.4f} ({name})" for name, value in told.items()) or "–"
    if not moves:
        return Verdict(claim, printed_text, "no dataset has all its runs", OPEN)
    text = ", ".join(f"{value:.4f} ({name})" for name, value in moves.items())
    ours = f"the better arm moves by {text}"
    seeds = min(len(c.values(c.metric)) for c in cells if c.experiment == experiment and c.dataset in moves)
    if seeds < LEAST_SEEDS:
        return Verdict(claim, printed_text, ours, f"{OPEN} (fewer than {LEAST_SEEDS} seeds)")
    return Verdict(claim, printed_text, ours, HOLDS if max(moves.values()) <= limit else FAILS)


def _span(values: list[float]) -> float:
    return max(values) - min(values)


def _drop(values: list[float]) -> float:
    """From the standard 100 epochs, the second setting, down to 50, the first."""
    return values[1] - values[0] if len(values) > 1 else 0.0


def _seeds(gains: Sequence[float]) -> str:
    return f"{len(gains)} seed" + ("s" if len(gains) > 1 else "")
