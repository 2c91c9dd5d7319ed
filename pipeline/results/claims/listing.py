"""All verdicts of a grid, in the order of the report."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.jobs.plan import Plan
from pipeline.results.claims import abstract, appendix, controls
from pipeline.results.claims.verdict import Verdict
from pipeline.results.collect import Cell
from pipeline.study.experiments import EXPERIMENTS


def verdicts(plan: Plan, cells: Sequence[Cell]) -> list[Verdict]:
    """One for each claim; none for a grid that has none of the paper's experiments."""
    if not any(cell.experiment in EXPERIMENTS for cell in cells):
        return []
    chosen = [info for info in plan.datasets if info.split in ("", plan.preset.split)]
    wanted = {info.ref.name: info.title for info in chosen}.values()
    # of two splits the preset's, of several versions the last: they share images
    cells = [cell for cell in cells if cell.dataset in wanted]
    return [*abstract.verdicts(plan, cells), *appendix.verdicts(plan, cells), controls.verdict(plan, cells)]
