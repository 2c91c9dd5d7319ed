"""Verdicts on the paper's abstract: gains by label fraction, time saved, robustness to batch size and epochs."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence

from pipeline.core.console import counted
from pipeline.jobs.plan import Plan
from pipeline.results import times
from pipeline.results.claims.comparisons import STEADY, STEEP, Judged, Pair, above_zero, within
from pipeline.results.claims.setting import lacking, pretraining
from pipeline.results.claims.verdict import FAILS, HOLDS, OPEN, Verdict, points, untested
from pipeline.results.collect import Cell, printed_results
from pipeline.results.statistics import MIN_SEEDS, estimate
from pipeline.study import paper


def verdicts(plan: Plan, cells: Sequence[Cell]) -> Iterator[Verdict]:
    main = [cell for cell in cells if cell.experiment == "main"]
    for fraction, claimed in paper.CLAIMED_GAINS.items():
        for other in ("DINO", "Supervised"):
            yield _gain(plan, main, fraction, claimed, other)
    yield _saving(plan, main)
    yield _robust(plan, cells, "batch_size", "a change of batch size", "Abstract; B.1, C.1, Tables 7 and 15")
    yield _robust(plan, cells, "epochs", "fewer epochs", "Abstract; B.2, C.2, Tables 8 and 16")


def printed_gains(fraction: str, other: str) -> dict[str, float]:
    """The gains over another technique that Tables 3 to 6 print: the mean over both networks, by dataset."""
    printed = {
        (dataset, *row.split(" | ")): score.value
        for (experiment, dataset, row, column), score in printed_results().items()
        if experiment == "main" and column == fraction
    }
    gains: dict[str, list[float]] = {}
    for (dataset, technique, network), value in printed.items():
        if technique == "CASS":
            gains.setdefault(dataset, []).append(value - printed[dataset, other, network])
    return {dataset: statistics.fmean(found) for dataset, found in gains.items()}


def _gain(plan: Plan, main: Sequence[Cell], fraction: str, claimed: float, other: str) -> Verdict:
    """The mean over datasets and backbones of CASS minus the other technique."""
    rival = "supervised training" if other == "Supervised" else other
    claim = f"CASS gains over {rival} with {fraction} of the labels"
    of_tables = printed_gains(fraction, other)
    printed = f"{points(claimed)} claimed; its own tables give {points(statistics.fmean(of_tables.values()))}"
    printed += f" over {counted(len(of_tables), 'dataset')}"
    found = {(c.dataset, c.backbone, c.row[0]): c for c in main if c.column == fraction}
    pairs: list[Pair] = [
        (ours, theirs)
        for (dataset, backbone, technique), ours in found.items()
        if technique == "CASS" and (theirs := found.get((dataset, backbone, other)))
    ]
    source = "Abstract; Tables 1 and 3 to 6"
    if not pairs:
        return untested(claim, source, printed)
    cells = [cell for pair in pairs for cell in pair]
    return Verdict(claim, source, printed, *above_zero(pairs), lacking(plan, cells, of_tables))


def _saving(plan: Plan, main: Sequence[Cell]) -> Verdict:
    """The mean over datasets of the time that CASS saves against DINO of both networks, seed by seed."""
    claim, source, printed = (
        "CASS takes less time than DINO",
        "Abstract; A.1, Table 2",
        f"{paper.CLAIMED_SAVING:.0%} less",
    )
    timed = [cell for cell in main if cell.method in paper.TABLE_2_HOURS]
    if not paper.TABLE_2_HOURS.keys() <= {cell.method for cell in timed}:
        return untested(claim, source, printed)
    savings = _savings(plan, timed)
    if not savings:
        ours = "no dataset has finished pretraining with CASS and with DINO of both networks yet"
        return Verdict(claim, source, printed, ours, OPEN)
    seeds = sorted(set.intersection(*map(set, savings.values())))
    by_seed = [statistics.fmean(savings[dataset][seed] for dataset in savings) for seed in seeds]
    mean = statistics.fmean(by_seed or [statistics.fmean(each.values()) for each in savings.values()])
    ours = f"{abs(mean):.0%} {'less' if mean >= 0 else 'more'}, mean of {', '.join(savings)}"
    ours += f", {counted(len(seeds), 'seed')}"
    machines = {(result.device, result.precision) for _, result in pretraining(plan, timed).values()}
    if len(machines) > 1:
        return Verdict(claim, source, printed, ours, OPEN, "the runs used different devices or precisions")
    if len(seeds) < MIN_SEEDS:
        return Verdict(claim, source, printed, ours, OPEN, f"fewer than {MIN_SEEDS} seeds")
    found = estimate(by_seed)
    if found is None:
        return Verdict(claim, source, printed, ours, OPEN, "all seeds save the same, so they show no spread")
    low, high = found.interval
    ours += f", 95 % interval {low:.0%} to {high:.0%}"
    missing = lacking(plan, timed, paper.TABLE_2_HOURS["cass"])
    if low > 0 or high < 0:
        return Verdict(claim, source, printed, ours, HOLDS if low > 0 else FAILS, "", missing)
    return Verdict(claim, source, printed, ours, OPEN, "the interval contains zero")


def _savings(plan: Plan, timed: Sequence[Cell]) -> dict[str, dict[int, float]]:
    """By dataset and seed: the part of DINO's time with the same networks that CASS saves, where all runs are done."""
    seconds = times.pretraining_seconds(plan, timed)
    out: dict[str, dict[int, float]] = {}
    pairs = {cell.dataset: cell.spec.pretrain.arms for cell in timed if cell.method == "cass" and cell.spec.pretrain}
    for dataset, arms in pairs.items():
        cass = seconds.get((dataset, "cass", ""), {})
        each = [seconds.get((dataset, "dino", arm.backbone), {}) for arm in arms]
        if shared := sorted(cass.keys() & set.intersection(*map(set, each))):
            out[dataset] = {seed: 1 - cass[seed] / sum(dino[seed] for dino in each) for seed in shared}
    return out


def _robust(plan: Plan, cells: Sequence[Cell], experiment: str, change: str, source: str) -> Verdict:
    """How much the better arm of each dataset changes over the settings of an experiment."""
    claim = f"CASS is robust to {change}"
    of_paper = {dataset for name, dataset, _, _ in printed_results() if name == experiment}
    members = [cell for cell in cells if cell.experiment == experiment]
    printed = _by_dataset({dataset: _printed_change(experiment, dataset) for dataset in sorted(of_paper)})
    if not members:
        return untested(claim, source, printed)
    named: dict[str, list[Pair]] = {}
    for dataset in dict.fromkeys(cell.dataset for cell in members):
        arm = _better_arm([cell for cell in members if cell.dataset == dataset])
        if experiment == "batch_size":
            named |= {
                f"{dataset}, {one.row[0]} and {other.row[0]}": [(one, other)]
                for number, one in enumerate(arm)
                for other in arm[number + 1 :]
            }
        elif len(arm) > 1:
            named[f"{dataset}, from {arm[1].row[0]} to {arm[0].row[0]}"] = [(arm[1], arm[0])]
    judged: Judged = ("no dataset has finished a run of every setting yet", OPEN, "")
    if named:
        judged = within(named, STEADY) if experiment == "batch_size" else within(named, STEEP, drop=True)
    return Verdict(claim, source, printed, *judged, lacking(plan, members, sorted(of_paper)))


def _better_arm(cells: Sequence[Cell]) -> list[Cell]:
    """The cells of the arm with the higher mean over all settings; empty where a setting has no finished run."""
    arms: dict[str, list[Cell]] = {}
    for cell in cells:
        arms.setdefault(cell.column, []).append(cell)
    if any(cell.mean(cell.metric) is None for cell in cells):
        return []
    return max(arms.values(), key=lambda arm: statistics.fmean(cell.mean(cell.metric) or 0.0 for cell in arm))


def _printed_change(experiment: str, dataset: str) -> float:
    """What the paper prints for the better arm: the span over batch sizes, or the drop from 100 epochs to 50."""
    arms: dict[str, list[float]] = {}
    for (name, of, _, column), score in printed_results().items():
        if (name, of) == (experiment, dataset):
            arms.setdefault(column, []).append(score.value)
    better = max(arms.values(), key=statistics.fmean)
    return max(better) - min(better) if experiment == "batch_size" else better[1] - better[0]


def _by_dataset(values: Mapping[str, float]) -> str:
    return ", ".join(f"{value:.4f} ({dataset})" for dataset, value in values.items())
