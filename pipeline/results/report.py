"""A grid's report: what was asked and found, its tables, claims, methods and limits, in every format."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.core import files
from pipeline.jobs.plan import Plan
from pipeline.results import (
    bootstrap,
    collect,
    datasets,
    differences,
    documents,
    elsewhere,
    ensembles,
    formats,
    growth,
    html,
    leakage,
    methods_section,
    patients,
    probes,
    quality,
    report_json,
    scores,
    summary,
    tables,
    texts,
)
from pipeline.results.claims import listing
from pipeline.results.claims.verdict import UNTESTED
from pipeline.results.content import Report
from pipeline.results.figures import gallery
from pipeline.results.figures.publish import PATIENCE
from pipeline.study import paper

if TYPE_CHECKING:
    from pipeline.results.figures.publish import FigureList, PlannedFigure


def make_report(plan: Plan, folder: Path | None = None, specificity: float = gallery.SPECIFICITY) -> Report:
    """Read the results of the plan's finished runs; the report's files are in `folder`, or the default one.

    specificity: at which sensitivities are given.
    """
    cells = collect.cells(plan)
    both = ensembles.ensembles(cells)
    every = [*cells, *both]
    intervals = [bootstrap.cell_interval(cell) for cell in every]  # first: it finds damage, which tables tell
    compared, data, best = differences.comparisons(cells), datasets.sections(plan), scores.best(cells)
    more = [*leakage.tables(plan, every), *growth.tables(plan, every), *quality.tables(every, specificity)]
    verdicts = listing.verdicts(plan, cells) if any(info.ref.name in paper.DATASETS for info in plan.datasets) else []
    collapsed = collect.collapsed(plan)
    return Report(
        plan=plan,
        cells=cells,
        ensembles=both,
        intervals=intervals,
        summary=summary.summary(plan, every, data, compared),
        best_table=scores.best_table(plan, best) if best else None,
        main=scores.tables(plan, every),
        tables=tables.tables(plan, cells, both, compared),
        classes=scores.class_tables(plan, best),
        probes=probes.tables(plan),
        more=[*more, *patients.tables(plan, cells), *elsewhere.tables(plan, cells)],
        best=best,
        compared=compared,
        data=data,
        methods=methods_section.paragraphs(plan, data, every, compared=bool(compared)),
        specificity=specificity,
        verdicts=[verdict for verdict in verdicts if verdict.outcome != UNTESTED],
        untested=sum(verdict.outcome == UNTESTED for verdict in verdicts),
        collapsed=collapsed,
        damaged=collect.damaged(plan, cells),
        unsealed=sum(not planned.run.sealed for planned in plan.in_state("done")),
        stand_in_note=texts.stand_in_note(plan),
        figures=(folder or plan.report_folder) / "figures",
    )


def write_report(report: Report, folder: Path) -> list[Path]:
    """Write report.txt, .md, .tex, .csv, .json and, where a run was judged by probes, probes.csv."""
    contents = {
        "report.txt": documents.as_text(report),
        "report.md": documents.as_markdown(report),
        "report.tex": documents.as_latex(report),
        "report.csv": formats.as_csv([*report.cells, *report.ensembles], report.intervals),
        "report.json": report_json.text(report),
    }
    if judged := probes.as_csv(report.plan):
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
    page = html.page(report, drawn.figures, folder / "figures", with_images=with_images)
    return _write(folder, {"report.html": page}), drawn


def _write(folder: Path, contents: dict[str, str]) -> list[Path]:
    with files.only_writer(folder / "report", patience=PATIENCE):
        for name, content in contents.items():
            files.remove_temporaries(folder, f"{name}.")
            files.write_text(folder / name, content)
    return [folder / name for name in contents]
