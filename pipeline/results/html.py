"""The report as one HTML page that needs no other file and no network.

Its tables can be sorted, and every score leads to its runs.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.core.console import duration
from pipeline.jobs.plan import Plan, PlannedRun
from pipeline.results import texts
from pipeline.results.claims.verdict import Verdict
from pipeline.results.collect import Cell
from pipeline.results.datasets import DataSection
from pipeline.results.tables import Table
from pipeline.runs.identity import to_json
from pipeline.runs.result import Result
from pipeline.runs.spec import kind_of, method_of

TITLES = {"paper": "CASS: the whole paper", "main": "CASS: the main experiment"}

Intervals = Mapping[int, tuple[float, float] | None]
"""The interval of a cell's score, by `id` of the cell."""


@dataclass(frozen=True)
class TableText:
    """One text in a table of the page."""

    text: str
    kind: str
    """`label`, `paper`, `complete`, `partial` or `missing`."""
    link: str = ""
    """The id of the run that it leads to."""
    hint: str = ""


def page(
    plan: Plan,
    tables: Sequence[Table],
    verdicts: Sequence[Verdict],
    warnings: Sequence[str],
    intervals: Intervals,
    data: Sequence[DataSection],
    figures: Sequence[Mapping[str, Any]],
    folder: Path,
    *,
    with_images: bool,
) -> str:
    """The page as text.

    figures: entries of figures.json, whose files are in `folder`. with_images: whether the data section may show
    images of the dataset.
    """
    import jinja2

    source = (Path(__file__).parent / "report.html.j2").read_text(encoding="utf-8")
    template = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined).from_string(source)
    runs = list(plan.runs.values())
    results = {planned.run.id: planned.run.result() for planned in runs if planned.state == "done"}
    # the time of a run that a longer run published is part of the longer run's time
    computed = {name: result for name, result in results.items() if result.published_by not in plan.runs}
    return template.render(
        title=TITLES.get(plan.grid, f"CASS: {plan.grid}"),
        subtitle=f"grid {plan.grid}, preset {plan.preset.name}; our results next to those printed in the CASS paper "
        "by Singh, Sizikova and Cirrone",
        facts=[
            ("runs done", f"{len(results)} of {len(runs)}"),
            ("datasets", str(len(plan.datasets))),
            ("seeds", str(len({spec.seed for spec in plan.wanted}))),
            ("compute time", duration(sum(result.seconds for result in computed.values()))),
        ],
        verdicts=verdicts,
        warnings=warnings,
        tables=[_table(table, intervals) for table in tables],
        data=[
            {**_table(each.table, intervals), "pairs": _base64(each.pairs) if each.pairs and with_images else ""}
            for each in data
        ],
        figures=[_figure(figure, folder) for figure in figures],
        cost=_cost(plan, computed),
        runs=[_run(planned, results.get(planned.run.id)) for planned in runs],
    )


def _table(table: Table, intervals: Intervals) -> dict[str, Any]:
    rows = []
    for number, line in enumerate(table.rows):
        row = []
        for column, text in enumerate(line):
            cell = table.cells.get((number, column))
            kind = "paper" if table.header[column].endswith("paper") else "label"
            row.append(_score(text, cell, intervals.get(id(cell))) if cell else TableText(text, kind))
        rows.append(row)
    return {"title": table.title, "header": table.header, "rows": rows, "notes": table.notes}


def _score(text: str, cell: Cell, interval: tuple[float, float] | None) -> TableText:
    """A score with a link to its first finished run, and a hint with the scores of its seeds."""
    seeds = ", ".join(f"{seed}: {value:.4f}" for seed, value in cell.scores(cell.metric).items())
    hint = f"seeds {seeds}" if seeds else "no run is done"
    if interval:
        over = "patients or lesions" if cell.groups and cell.groups.by_key else "images"
        hint += f"; 95 % interval over test {over} {texts.interval(interval)}"
    first = next(iter(cell.results or cell.runs))
    return TableText(text, cell.status, cell.runs[first].id, hint)


def _figure(figure: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """A figure with the bytes of its PNG file in base64, and the paper's figure that it repeats or resembles."""
    paper = figure["paper"]
    if paper:
        paper = f"Like the paper's {paper[3:]}" if paper.startswith("as ") else f"The paper's {paper}"
    (name,) = [name for name in figure["files"] if name.endswith(".png")]
    return {"caption": figure["caption"], "paper": paper, "data": _base64(folder / name)}


def _base64(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()


def _cost(plan: Plan, computed: Mapping[str, Result]) -> dict[str, Any]:
    """Time and speed of runs, by id, for each dataset, kind, method, device and precision."""
    groups: dict[tuple[str, ...], list[Result]] = {}
    for name, result in computed.items():
        spec = plan.runs[name].spec
        of_spec = (plan.title_of(spec.dataset), kind_of(spec), method_of(spec))
        key: tuple[str, ...] = (*of_spec, result.device, result.precision)
        groups.setdefault(key, []).append(result)
    header = "dataset,kind,method,device,precision,runs,total time,time per run,images per second".split(",")
    rows = []
    for key, results in groups.items():
        total = sum(result.seconds for result in results)
        images = sum(result.seconds * result.images_per_second for result in results)
        speed = images / total if total else 0.0
        rows.append([*key, str(len(results)), duration(total), duration(total / len(results)), f"{speed:.0f}"])
    return {"header": header, "rows": rows}


def _run(planned: PlannedRun, result: Result | None) -> dict[str, str]:
    """A run as the page lists it: its state and spec; for a finished run also its results and what computed them."""
    out = {"id": planned.run.id, "name": planned.name, "state": planned.state, "facts": "", "more": ""}
    out["spec"] = json.dumps(to_json(planned.spec), indent=1)
    if result is None:
        out["more"] = planned.run.reason()
        return out
    out["facts"] = f"seed {planned.spec.seed}, {duration(result.seconds)}, {result.device}, {result.precision}"
    more = {
        "metrics": {name: value for name, value in result.metrics.items() if name != "per_class"},
        "temperature": result.temperature,
        "epochs": result.epochs,
        "best epoch": result.best_epoch,
        "images per second": round(result.images_per_second, 1),
        "threads": result.threads,
        "code": result.code,
        "versions": result.versions,
        "inputs": result.notes.get("inputs"),
        "starts from": planned.parent,
        "log": str(planned.run["log"]),
    }
    out["more"] = json.dumps(more, indent=1)
    return out
