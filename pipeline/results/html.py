"""The report as one page that stands alone: it sorts, prints and needs no network; every value leads to its runs."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.core.console import duration
from pipeline.jobs.plan import Plan, PlannedRun
from pipeline.results.claims import Verdict
from pipeline.results.collect import Cell
from pipeline.results.tables import Table
from pipeline.runs.folder import Result
from pipeline.runs.identity import to_json
from pipeline.runs.spec import kind_of, method_of

TITLES = {"paper": "CASS: the whole paper", "main": "CASS: the main experiment"}


@dataclass(frozen=True)
class Part:
    """One cell of a table on the page."""

    text: str
    kind: str
    """`label`, `paper`, `complete`, `partial` or `missing`."""
    link: str = ""
    hint: str = ""


def page(
    plan: Plan,
    tables: Sequence[Table],
    verdicts: Sequence[Verdict],
    warnings: Sequence[str],
    intervals: Mapping[int, tuple[float, float] | None],
    figures: Sequence[Mapping[str, Any]],
    folder: Path,
) -> str:
    """The page as text. intervals: by `id` of a cell; figures: entries of figures.json, their files in `folder`."""
    import jinja2

    source = (Path(__file__).parent / "report.html.j2").read_text(encoding="utf-8")
    template = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined).from_string(source)
    items = list(plan.runs.values())
    done = [item for item in items if item.state == "done"]
    # what a longer run published on its way is in that run's time already
    results = {item.run.id: item.run.result() for item in done}
    computed = {item.run.id: item for item in done if results[item.run.id].notes.get("carried_by") not in plan.runs}
    seconds = sum(results[identity].seconds for identity in computed)
    return template.render(
        title=TITLES.get(plan.grid, f"CASS: {plan.grid}"),
        subtitle=f"grid {plan.grid}, preset {plan.preset.name}; ours beside Singh, Sizikova and Cirrone, CASS",
        facts=[
            ("runs done", f"{len(done)} of {len(items)}"),
            ("datasets", str(len(plan.datasets))),
            ("seeds", str(len({spec.seed for spec in plan.wanted}))),
            ("time computed", duration(seconds)),
        ],
        verdicts=verdicts,
        flagged=warnings,
        tables=[_shown(table, intervals) for table in tables],
        figures=[_embedded(figure, folder) for figure in figures],
        cost=_cost([(item, results[identity]) for identity, item in computed.items()]),
        runs=[_described(item, results.get(item.run.id)) for item in items],
    )


def _shown(table: Table, intervals: Mapping[int, tuple[float, float] | None]) -> dict[str, Any]:
    rows = []
    for number, texts in enumerate(table.rows):
        parts = []
        for column, text in enumerate(texts):
            cell = table.cells.get((number, column))
            kind = "paper" if table.header[column].endswith("paper") else "label"
            parts.append(_linked(text, cell, intervals.get(id(cell))) if cell else Part(text, kind))
        rows.append(parts)
    return {"title": table.title, "header": table.header, "rows": rows, "notes": table.notes}


def _linked(text: str, cell: Cell, interval: tuple[float, float] | None) -> Part:
    seeds = ", ".join(f"{seed}: {value:.4f}" for seed, value in cell.scores(cell.metric).items())
    hint = f"seeds {seeds}" if seeds else "no run is done"
    if interval:
        hint += f"; 95 % over test images {interval[0]:.4f} to {interval[1]:.4f}"
    first = next(iter(cell.results or cell.runs))
    return Part(text, cell.status, cell.runs[first].id, hint)


def _embedded(figure: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    (name,) = [name for name in figure["files"] if name.endswith(".png")]
    data = base64.b64encode((folder / name).read_bytes()).decode()
    return {"caption": figure["caption"], "paper": figure["paper"], "data": data}


def _cost(done: Sequence[tuple[PlannedRun, Result]]) -> dict[str, Any]:
    """Time and speed by dataset, kind, method and device."""
    groups: dict[tuple[str, ...], list[tuple[float, float]]] = {}
    for item, result in done:
        key: tuple[str, ...]
        key = (item.spec.dataset.name, kind_of(item.spec), method_of(item.spec), result.device, result.precision)
        groups.setdefault(key, []).append((result.seconds, result.images_per_second))
    header = "dataset,kind,method,device,precision,runs,time in all,time a run,images a second".split(",")
    rows = []
    for key, values in groups.items():
        whole = sum(seconds for seconds, _ in values)
        speed = sum(seconds * speed for seconds, speed in values) / whole if whole else 0.0
        rows.append([*key, str(len(values)), duration(whole), duration(whole / len(values)), f"{speed:.0f}"])
    return {"header": header, "rows": rows}


def _described(item: PlannedRun, result: Result | None) -> dict[str, str]:
    """A run as the page lists it: where it stands, its scores and what it was computed with, its spec."""
    out = {"id": item.run.id, "state": item.state, "facts": "", "more": ""}
    out["spec"] = json.dumps(to_json(item.spec), indent=1)
    if result is None:
        out["more"] = item.run.reason()
        return out
    out["facts"] = f"seed {item.spec.seed}, {duration(result.seconds)}, {result.device}, {result.precision}"
    facts = {name: value for name, value in result.metrics.items() if name != "per_class"}
    more = {
        "metrics": facts,
        "epochs": result.epochs,
        "best epoch": result.best_epoch,
        "images a second": round(result.images_per_second, 1),
        "threads": result.threads,
        "code": result.code,
        "versions": result.versions,
        "inputs": result.notes.get("inputs"),
        "starts from": item.parent,
        "log": str(item.run["log"]),
    }
    out["more"] = json.dumps(more, indent=1)
    return out
