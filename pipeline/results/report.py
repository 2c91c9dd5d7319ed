"""A grid's report: its tables, the verdicts on the paper's claims and warnings, in every format."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.core import console, files
from pipeline.jobs.plan import Plan
from pipeline.results import claims, collect, formats, html, probes, statistics, tables, texts
from pipeline.results.claims import Verdict
from pipeline.results.collect import Cell
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
    intervals: list[tuple[float, float] | None]
    """Of each cell's score, over resampled test images."""
    tables: list[Table]
    verdicts: list[Verdict]
    """Empty for a grid without the main experiment."""
    collapsed: list[str]
    """Pretraining runs with collapsed arms."""
    damaged: list[str]
    """What is wrong with what finished runs left."""
    unsealed: int
    """How many finished runs are of earlier code, which wrote no checksums."""
    stand_in_note: str
    """Empty where no dataset is a stand-in."""

    @property
    def unfinished(self) -> int:
        """How many runs the tables still wait for."""
        return sum(cell.wanted - len(cell.results) for cell in self.cells)

    def as_text(self) -> str:
        text = f"{self.stand_in_note}\n\n" if self.stand_in_note else ""
        text += formats.as_text(self.tables)
        if self.verdicts:
            rows = [(v.claim, v.printed, v.ours, v.verdict) for v in self.verdicts]
            lines = console.table(rows, header=("claim", "paper", "ours", "verdict"))
            text += f"\nThe paper's claims\n\n{lines}\n"
        if self.collapsed:
            text += "\ncollapsed in pretraining (nearly the same output for every image):\n"
            text += "".join(f"  {line}\n" for line in self.collapsed)
        if self.damaged:
            text += "\ndamaged runs (launch --retry makes them again):\n"
            text += "".join(f"  {line}\n" for line in self.damaged)
        return text + (f"\n{unsealed_text(self.unsealed)}\n" if self.unsealed else "")


def make_report(plan: Plan) -> Report:
    """Read the results of the plan's finished runs."""
    cells = collect.cells(plan)
    return Report(
        plan=plan,
        cells=cells,
        intervals=[statistics.cell_interval(cell) for cell in cells],
        tables=[*tables.tables(plan, cells), *probes.tables(plan)],
        verdicts=claims.verdicts(plan, cells) if any(cell.experiment == "main" for cell in cells) else [],
        collapsed=collect.collapsed(plan),
        damaged=collect.damaged(plan, cells),
        unsealed=sum(not planned.run.sealed for planned in plan.in_state("done")),
        stand_in_note=texts.stand_in_note(plan),
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
        "report.md": f"# {plan.grid}, preset {plan.preset.name}\n\n{formats.as_markdown(report.tables)}",
        "report.tex": formats.as_latex(report.tables),
        "report.csv": formats.as_csv(report.cells, report.intervals),
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
    drawn = gallery.draw(report.plan, report.cells, folder / "figures", with_images=with_images, watch=watch)
    page = html.page(
        report.plan,
        report.tables,
        report.verdicts,
        [report.stand_in_note] * bool(report.stand_in_note)
        + [f"Collapsed in pretraining: {line}" for line in report.collapsed]
        + [f"Damaged: {line}" for line in report.damaged],
        {id(cell): interval for cell, interval in zip(report.cells, report.intervals, strict=True)},
        drawn.figures,
        folder / "figures",
    )
    return _write(folder, {"report.html": page}), drawn


def _write(folder: Path, contents: dict[str, str]) -> list[Path]:
    with files.only_writer(folder / "report", patience=PATIENCE):
        for name, content in contents.items():
            files.remove_temporaries(folder, f"{name}.")
            files.write_text(folder / name, content)
    return [folder / name for name in contents]
