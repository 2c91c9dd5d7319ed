"""What a report says, before it is written in a format."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pipeline.core.console import counted
from pipeline.jobs.plan import Plan
from pipeline.results.claims import attention
from pipeline.results.claims.verdict import UNTESTED, Verdict
from pipeline.results.collect import Cell
from pipeline.results.datasets import DataSection
from pipeline.results.differences import Comparison
from pipeline.results.ensembles import Ensemble
from pipeline.results.methods_section import Paragraph
from pipeline.results.scores import Best
from pipeline.results.summary import Summary
from pipeline.results.tables import Table


@dataclass(frozen=True)
class Report:
    """A grid's report, or a single run's."""

    plan: Plan
    cells: list[Cell]
    ensembles: list[Ensemble]
    intervals: list[tuple[float, float] | None]
    """Of each cell's score and then of each ensemble's, over resampled test images."""
    summary: Summary
    best_table: Table | None
    """The best setting of each dataset; None without one."""
    main: list[Table]
    """The main table of each dataset: validation next to test with its interval, at the largest label fraction."""
    tables: list[Table]
    """The experiments in the paper's shape, and techniques compared."""
    classes: list[Table]
    """Scores by class of the best settings."""
    probes: list[Table]
    more: list[Table]
    """What leakage is worth, ranking and calibration, patients, other data."""
    best: list[Best]
    """The best setting of each dataset, by validation."""
    compared: list[Comparison]
    data: list[DataSection]
    methods: list[Paragraph]
    specificity: float
    """At which sensitivities are given."""
    verdicts: list[Verdict]
    """Those on the paper's claims that results alone decide and for which the grid has runs; empty on other data."""
    untested: int
    """How many of the paper's claims the grid has no run for; 0 where it has none of them at all."""
    collapsed: list[str]
    """Pretraining runs with collapsed arms."""
    damaged: list[str]
    """What is wrong with what finished runs left."""
    unsealed: int
    """How many finished runs are of earlier code, which wrote no checksums."""
    stand_in_note: str
    """Empty where no dataset is a stand-in."""
    figures: Path
    """The folder of its figures."""

    @property
    def unfinished(self) -> int:
        """How many runs the tables still wait for."""
        return sum(cell.wanted - len(cell.results) for cell in self.cells)

    @property
    def every_table(self) -> list[Table]:
        """The tables of results and of data, those of the best settings and of all first."""
        best = [self.best_table] if self.best_table else []
        results = [*best, *self.main, *self.tables, *self.classes, *self.probes, *self.more]
        return [*results, *(section.table for section in self.data)]

    @property
    def claims(self) -> list[Verdict]:
        """All verdicts, with those on attention maps as they are drawn now."""
        drawn = attention.verdicts(self.cells, self.figures) if self.verdicts else ()
        return [*self.verdicts, *(verdict for verdict in drawn if verdict.outcome != UNTESTED)]

    @property
    def warnings(self) -> list[str]:
        """What a reader must know before anything else."""
        out = [self.stand_in_note] if self.stand_in_note else []
        out += [f"{counted(self.unfinished, 'run')} of the tables not done yet"] if self.unfinished else []
        return [*out, *(f"damaged: {line}" for line in self.damaged)]
