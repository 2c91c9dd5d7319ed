"""The results of all steps as one Markdown page and one JSON file."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import Any

from pipeline.benchmarks.gpu import speed
from pipeline.benchmarks.gpu.programme import Programme, Sheet
from pipeline.benchmarks.gpu.steps import STEPS
from pipeline.core import files
from pipeline.core.console import markdown

ROOT = Path(__file__).parents[3]
NAME = "gpu"


def write(programme: Programme) -> Path:
    """Write `gpu.md` and `gpu.json` from the results that are there; returns the page's path."""
    steps: list[dict[str, Any]] = []
    for name, step in STEPS.items():
        parts = step.parts(programme)
        every = {part: found for part in parts if (found := programme.found(name, part)) is not None}
        good = {part: found for part, found in every.items() if "error" not in found}
        steps.append(
            {
                "name": name,
                "title": step.TITLE,
                "tables": [dataclasses.asdict(sheet) for sheet in step.sheets(programme, good)],
                "failed": {part: found["error"] for part, found in every.items() if "error" in found},
                "left": [part for part in parts if part not in every],
                "parts": every,
            }
        )
    files.write_json(
        programme.out / f"{NAME}.json", {"rehearsal": programme.quick, "model": model(programme), "steps": steps}
    )
    path = programme.out / f"{NAME}.md"
    files.write_text(path, page_text(programme, steps))
    return path


def model(programme: Programme) -> dict[str, Any]:
    """What the estimates of `launch --dry-run` take from it (`jobs/measured`); a rehearsal measures nothing."""
    facts = programme.found("machine", "facts") or {}
    parts = speed.parts(programme)
    good = {part: programme.found("speed", part) or {} for part in parts if programme.is_done("speed", part)}
    measured = ({}, []) if programme.quick else (speed.teraflops(good), speed.reserved(good))
    return {"gpu": facts.get("gpu"), "teraflops": measured[0], "reserved": measured[1]}


def page_text(programme: Programme, steps: list[dict[str, Any]]) -> str:
    """The page: every table, and what failed or is still to do."""
    facts = programme.found("machine", "facts") or {}
    lines = [f"# Measured on {markdown(str(facts.get('gpu') or facts.get('cpu') or 'an unknown machine'))}", ""]
    command = "make gpu" + " REHEARSE=1" * programme.quick
    lines += [
        f"Written {time.strftime('%Y-%m-%d %H:%M')} by `{command}`, which continues with what is not done yet.",
        "",
    ]
    if programme.quick:
        lines += ["A REHEARSAL on the CPU, in little: it shows that every step works, and measures nothing.", ""]
    for step in steps:
        for sheet in step["tables"]:
            lines += [f"## {markdown(sheet['title'])}", "", *table_lines(Sheet(**sheet)), ""]
        for part, error in step["failed"].items():
            lines += [f"- failed: {markdown(step['name'])}, {markdown(part)}: {markdown(error)}"]
        if step["left"]:
            of = f"{len(step['left'])} of {len(step['left']) + len(step['parts'])} parts"
            lines += [f"- not done yet: {markdown(step['name'])}: {of}, the next is {markdown(step['left'][0])}"]
        lines += [""] * bool(step["failed"] or step["left"])
    return "\n".join(lines)


def table_lines(sheet: Sheet) -> list[str]:
    """A table in Markdown, then its notes."""
    rows = [sheet.header, ["---"] * len(sheet.header), *([markdown(str(cell)) for cell in row] for row in sheet.rows)]
    lines = [f"| {' | '.join(str(cell) for cell in row)} |" for row in rows]
    return [*lines, *([""] if sheet.notes else []), *(f"- {markdown(note)}" for note in sheet.notes)]
