"""How long pretraining took, from the time that finished runs recorded."""

from __future__ import annotations

import statistics
from collections.abc import Iterable

from pipeline.jobs.plan import Plan
from pipeline.results.collect import Cell
from pipeline.runs.result import Result
from pipeline.runs.spec import PretrainSpec, method_of


def pretraining_seconds(plan: Plan, cells: Iterable[Cell]) -> dict[tuple[str, str, str], dict[int, float]]:
    """Seconds of each finished pretraining run that runs of these cells start from.

    By (dataset, method, backbone), then by seed; backbone is "" for a method that trains several at once.
    """
    found: dict[str, tuple[str, PretrainSpec, Result]] = {}
    for cell in cells:
        if cell.spec.pretrain is None:
            continue
        for run in cell.runs.values():
            parent = plan.runs[run.id].parent
            if parent and plan.runs[parent].state == "done" and parent not in found:
                spec = plan.runs[parent].spec
                assert isinstance(spec, PretrainSpec)
                found[parent] = cell.dataset, spec, plan.runs[parent].run.result()
    out: dict[tuple[str, str, str], dict[int, float]] = {}
    for dataset, spec, result in found.values():
        backbone = spec.arms[0].backbone if len(spec.arms) == 1 else ""
        out.setdefault((dataset, method_of(spec), backbone), {})[spec.seed] = result.seconds
    return out


def compute_seconds(plan: Plan, results: Iterable[Result]) -> float:
    """The seconds of finished runs together; those of a run that a longer run of the plan published are in its own."""
    return sum(result.seconds for result in results if result.published_by not in plan.runs)


def mean(seconds: Iterable[float]) -> float | None:
    """The mean; None without a value."""
    values = list(seconds)
    return statistics.fmean(values) if values else None
