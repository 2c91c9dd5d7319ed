"""The report as one HTML page that needs no other file and no network (`page.html.j2` and the templates it includes).

Its tables can be sorted, every score shows its interval and leads to its runs; on a phone a row is a block of lines.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.core.console import duration
from pipeline.jobs.plan import PlannedRun
from pipeline.results import texts
from pipeline.results.collect import Cell
from pipeline.results.content import Report
from pipeline.results.tables import Table
from pipeline.runs.identity import to_json
from pipeline.runs.result import Result
from pipeline.runs.spec import kind_of, method_of

PIXELS_PER_INCH = 96  # of CSS; figures have 200 (figures/style)
FIGURE_DPI = 200
COLUMN = 720  # CSS pixels: a wider figure has a row of its own; others share one at no less than 0.8 of their size
SMALL = 250_000  # bytes of a figure that is kept without any loss
WEBP_PIXELS = 16383  # on a side, the most that the format has
QUALITY = 92  # of WebP where it would be larger, such as one of many photographs; no difference is seen
LONG = 20  # characters: longer texts may take several lines, of this width

Intervals = Mapping[int, tuple[float, float] | None]
"""The interval of a cell's score, by `id` of the cell."""


@dataclass(frozen=True)
class TableText:
    """One text in a table of the page."""

    text: str
    kind: str
    """`label` or `value`, then `long` or `paper`, or of a score `complete`, `partial` or `missing`."""
    link: str = ""
    """The id of the run that it leads to."""
    more: Sequence[str] = ()
    """Lines under it: the interval, the validation score."""
    hint: str = ""


def page(report: Report, figures: Sequence[Mapping[str, Any]], folder: Path, *, with_images: bool) -> str:
    """The page as text.

    figures: entries of figures.json, whose files are in `folder`. with_images: whether the data section may show
    images of the dataset.
    """
    import jinja2

    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    environment = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    plan = report.plan
    runs = list(plan.runs.values())
    results = {planned.run.id: planned.run.result() for planned in runs if planned.state == "done"}
    every = [*report.cells, *report.ensembles]
    intervals = {id(cell): ends for cell, ends in zip(every, report.intervals, strict=True)}
    return environment.get_template("page.html.j2").render(
        summary=report.summary,
        warnings=report.warnings,
        best=_table(report.best_table, {}) if report.best_table else None,
        main=[_table(table, {}) for table in report.main],
        classes=[_table(table, {}) for table in report.classes],
        tables=[_table(table, intervals) for table in report.tables],
        probes=[_table(table, {}) for table in report.probes],
        data=[
            {**_table(each.table, {}), "pairs": _embedded(each.pairs)[1] if each.pairs and with_images else ""}
            for each in report.data
        ],
        verdicts=report.claims,
        untested=report.untested,
        more=[_table(table, intervals) for table in report.more],
        methods=report.methods,
        figures=[_figure(figure, folder) for figure in figures],
        cost=_cost(report, results),
        runs=[_run(planned, results.get(planned.run.id)) for planned in runs],
    )


def _table(table: Table, intervals: Intervals) -> dict[str, Any]:
    """A table for the template. intervals: where the table shows a cell's score alone, the lines under it."""
    rows = []
    for number, line in enumerate(table.rows):
        row = []
        for column, text in enumerate(line):
            cell = table.cells.get((number, column))
            kind = "label" if column < table.labels else "value"
            kind += " paper" if table.header[column].endswith("paper") else ""
            row.append(_score(text, cell, intervals, kind) if cell else _plain(text, kind))
        rows.append(row)
    return {"title": table.title, "header": table.header, "rows": rows, "notes": table.notes}


def _plain(text: str, kind: str) -> TableText:
    """A text that is no score; the gain that follows `start → end` in brackets goes under it."""
    shown, bracket, gain = text.partition(" (") if "→" in text else (text, "", "")
    more = [gain.removesuffix(")")] if bracket else []
    return TableText(shown, f"{kind} long" if len(shown) > LONG else kind, more=more)


def _score(text: str, cell: Cell, intervals: Intervals, kind: str) -> TableText:
    """A score with a link to its first finished run, its interval and validation score under it, and its seeds."""
    seeds = ", ".join(f"{seed}: {value:.4f}" for seed, value in cell.scores(cell.metric).items())
    first = next(iter(cell.results or cell.runs))
    more = []
    if id(cell) in intervals and text == texts.our_score(cell):
        ends = intervals[id(cell)]
        more += [f"95 %: {texts.interval(ends)}"] if ends else []
        more += [f"validation {texts.mean_of(list(cell.val_scores.values()))}"] if cell.val_scores else []
    return TableText(
        text, f"{kind} {cell.status}", cell.runs[first].id, more, f"seeds {seeds}" if seeds else "no run is done"
    )


def _figure(figure: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """A figure for the page, with its own width in CSS pixels and the paper's figure that it repeats or resembles."""
    paper = figure["paper"]
    if paper:
        paper = f"Like the paper's {paper[3:]}" if paper.startswith("as ") else f"The paper's {paper}"
    (name,) = [name for name in figure["files"] if name.endswith(".png")]
    pixels, data = _embedded(folder / name)
    width = round(pixels * PIXELS_PER_INCH / FIGURE_DPI)
    return {"caption": figure["caption"], "paper": paper, "data": data, "width": width, "wide": width > COLUMN}


def _embedded(path: Path) -> tuple[int, str]:
    """The width in pixels of a PNG file, and the same as a `data:` address: WebP, a third of its bytes."""
    from PIL import Image

    with Image.open(path) as file:
        image = file.convert("RGB")
    if max(image.size) > WEBP_PIXELS:
        return image.width, "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()
    out = io.BytesIO()
    image.save(out, "WEBP", lossless=True, method=4)
    if out.tell() > SMALL:
        lossy = io.BytesIO()
        image.save(lossy, "WEBP", quality=QUALITY, method=4)
        out = min(out, lossy, key=io.BytesIO.tell)
    return image.width, "data:image/webp;base64," + base64.b64encode(out.getvalue()).decode()


def _cost(report: Report, results: Mapping[str, Result]) -> dict[str, Any]:
    """Time and speed of runs for each dataset, kind, method, device and precision."""
    plan = report.plan
    groups: dict[tuple[str, ...], list[Result]] = {}
    for name, result in results.items():
        if result.published_by in plan.runs:  # its time is part of the longer run's
            continue
        spec = plan.runs[name].spec
        of_spec = (plan.title_of(spec.dataset), kind_of(spec), method_of(spec))
        key: tuple[str, ...] = (*of_spec, result.device, result.precision)
        groups.setdefault(key, []).append(result)
    rows = []
    for key, found in groups.items():
        total = sum(result.seconds for result in found)
        images = sum(result.seconds * result.images_per_second for result in found)
        speed = images / total if total else 0.0
        rows.append((*key, str(len(found)), duration(total), duration(total / len(found)), f"{speed:.0f}"))
    header = tuple("dataset,kind,method,device,precision,runs,total time,time per run,images per second".split(","))
    return _table(Table(None, "", 5, header, rows, ()), {})


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
