"""A grid's report: its tables, the verdicts on the paper's claims and warnings, in every format."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.core import files
from pipeline.jobs.plan import Plan
from pipeline.results import (
    bootstrap,
    collect,
    datasets,
    elsewhere,
    ensembles,
    formats,
    growth,
    html,
    leakage,
    patients,
    probes,
    quality,
    tables,
    texts,
)
from pipeline.results.claims import attention, listing
from pipeline.results.claims.verdict import Verdict
from pipeline.results.collect import Cell
from pipeline.results.datasets import DataSection
from pipeline.results.ensembles import Ensemble
from pipeline.results.figures import gallery
from pipeline.results.figures.publish import PATIENCE
from pipeline.results.tables import Table
from pipeline.runs.folder import unsealed_text

if TYPE_CHECKING:
    from pipeline.results.figures.publish import FigureList, PlannedFigure


@dataclass(frozen=True)
class Report:
    """What a report says, before it is written in a format."""

    plan: Plan
    cells: list[Cell]
    ensembles: list[Ensemble]
    intervals: list[tuple[float, float] | None]
    """Of each cell's score and then of each ensemble's, over resampled test images."""
    tables: list[Table]
    data: list[DataSection]
    specificity: float
    """At which sensitivities are given."""
    verdicts: list[Verdict]
    """Those on the paper's claims that results alone decide; empty for a grid without an experiment of the paper."""
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
        """The tables of results and of data."""
        return [*self.tables, *(section.table for section in self.data)]

    @property
    def claims(self) -> list[Verdict]:
        """All verdicts, with those on attention maps as they are drawn now."""
        return [*self.verdicts, *attention.verdicts(self.cells, self.figures)] if self.verdicts else []

    def claims_as(self, style: Callable[[Verdict], str], title: str) -> str:
        """The claims under a title, each as text; empty without a claim."""
        return f"{title}\n\n" + "\n".join(map(style, self.claims)) + "\n" if self.verdicts else ""

    def as_text(self) -> str:
        text = f"{self.stand_in_note}\n\n" if self.stand_in_note else ""
        text += formats.as_text(self.every_table)
        text += self.claims_as(formats.verdict_as_text, "\nThe paper's claims")
        if self.collapsed:
            text += "\ncollapsed in pretraining (nearly the same output for every image):\n"
            text += "".join(f"  {line}\n" for line in self.collapsed)
        if self.damaged:
            text += "\ndamaged runs (launch --retry makes them again):\n"
            text += "".join(f"  {line}\n" for line in self.damaged)
        return text + (f"\n{unsealed_text(self.unsealed)}\n" if self.unsealed else "")


def make_report(plan: Plan, folder: Path | None = None, specificity: float = gallery.SPECIFICITY) -> Report:
    """Read the results of the plan's finished runs; the report's files are in `folder`, or the default one.

    specificity: at which sensitivities are given.
    """
    cells = collect.cells(plan)
    both = ensembles.ensembles(cells)
    every = [*cells, *both]
    intervals = [bootstrap.cell_interval(cell) for cell in every]  # first: it finds damage, which tables tell
    made = [*tables.tables(plan, cells, both), *leakage.tables(plan, every), *growth.tables(plan, every)]
    made += quality.tables(every, specificity)
    return Report(
        plan=plan,
        cells=cells,
        ensembles=both,
        intervals=intervals,
        tables=[*made, *patients.tables(plan, cells), *elsewhere.tables(plan, cells), *probes.tables(plan)],
        data=datasets.sections(plan),
        specificity=specificity,
        verdicts=listing.verdicts(plan, cells),
        collapsed=collect.collapsed(plan),
        damaged=collect.damaged(plan, cells),
        unsealed=sum(not planned.run.sealed for planned in plan.in_state("done")),
        stand_in_note=texts.stand_in_note(plan),
        figures=(folder or default_folder(plan)) / "figures",
    )


def default_folder(plan: Plan) -> Path:
    """Where the files go unless the user names another folder: reports/GRID, or reports/GRID-PRESET."""
    preset = plan.preset.name
    return Path("reports") / (plan.grid if preset == "paper" else f"{plan.grid}-{preset}")


def write_report(report: Report, folder: Path) -> list[Path]:
    """Write report.txt, report.md, report.tex, report.csv and, where a run was judged by probes, probes.csv."""
    plan = report.plan
    contents = {
        "report.txt": report.as_text(),
        "report.md": f"# {plan.grid}, preset {plan.preset.name}\n\n{formats.as_markdown(report.every_table)}"
        + report.claims_as(formats.verdict_as_markdown, "\n## The paper's claims"),
        "report.tex": formats.as_latex(report.every_table),
        "report.csv": formats.as_csv([*report.cells, *report.ensembles], report.intervals),
    }
    if judged := probes.as_csv(plan):
        contents["probes.csv"] = judged
    return _write(folder, contents)


def write_html(
    report: Report,
    folder: Path,
    *,
    with_images: bool,
    watch: Callable[[list[PlannedFigure]], Iterable[PlannedFigure]] = iter,
) -> tuple[list[Path], FigureList]:
    """Draw the figures into `folder`/figures and write report.html; returns its path and what became of the figures."""
    drawn = gallery.draw(
        report.plan,
        report.cells,
        folder / "figures",
        with_images=with_images,
        specificity=report.specificity,
        watch=watch,
    )
    every = [*report.cells, *report.ensembles]
    page = html.page(
        report.plan,
        report.tables,
        report.claims,
        [report.stand_in_note] * bool(report.stand_in_note)
        + [f"Collapsed in pretraining: {line}" for line in report.collapsed]
        + [f"Damaged: {line}" for line in report.damaged],
        {id(cell): interval for cell, interval in zip(every, report.intervals, strict=True)},
        report.data,
        drawn.figures,
        folder / "figures",
        with_images=with_images,
    )
    return _write(folder, {"report.html": page}), drawn


def _write(folder: Path, contents: dict[str, str]) -> list[Path]:
    with files.only_writer(folder / "report", patience=PATIENCE):
        for name, content in contents.items():
            files.remove_temporaries(folder, f"{name}.")
            files.write_text(folder / name, content)
    return [folder / name for name in contents]
