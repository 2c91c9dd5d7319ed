"""What a tracker is told of a run: all of it from the run's folder, the same whenever it is read."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from pipeline.core import files
from pipeline.runs.folder import Run
from pipeline.runs.identity import to_json
from pipeline.runs.spec import FinetuneSpec, Spec, kind_of, method_of
from pipeline.runs.values import flat

STARTED = ("done", "damaged", "running", "interrupted", "failed")  # states of runs that there is something to tell of
ENDED = ("done", "damaged", "failed")
SIGNS = r"[^\w.-]"  # that trackers do not take in an id

Point = tuple[int, dict[str, float]]
"""A training step and what was measured there."""
CURVES = "epoch/"  # before the names of metrics that have a curve
LOSS = CURVES + "loss"


@dataclass(frozen=True)
class Record:
    """A run, or a grid's report, as a tracker is told of it."""

    id: str
    """The run's id, by which the tracker's one run for it is found again."""
    state: str
    params: dict[str, Any] = field(default_factory=dict)
    """The spec with dotted names."""
    tags: dict[str, str] = field(default_factory=dict)
    epochs: list[list[Point]] = field(default_factory=list)
    """The points of each epoch in order; the last of an epoch has its LOSS, and every point has a step of its own."""
    result: dict[str, float] = field(default_factory=dict)
    """The numbers of the result, by names that begin with `result/`; empty before the run is done."""
    files: list[Path] = field(default_factory=list)
    """What is stored as it is: result.json, the report."""
    began: float = 0.0
    """Seconds since 1970."""
    ended: float | None = None

    @property
    def digest(self) -> str:
        """Equal where all of it is, but for when it began: a resumed run writes that file again."""
        value = dataclasses.asdict(self) | {
            "began": None,
            "files": [(path.name, files.sha256_file(path)) for path in self.files],
        }
        return files.sha256_bytes(json.dumps(value, sort_keys=True).encode())[:16]


class Refused(ValueError):
    """A tracker that answers does not take one record; it may take others."""


class Tracker(Protocol):
    """Where records go."""

    def send(self, record: Record) -> str:
        """Make the tracker's run of this record equal to it; returns what was done: `new`, `more`, `again` (it held
        another training of the same run), `removed` (a person deleted it there, so it stays away), or nothing.

        Raises `ValueError` where the tracker does not answer, `Refused` where it does not take this record.
        """


def run_record(run: Run, spec: Spec, state: str, grid: str) -> Record:
    """A run that has started, as its folder tells it; raises `ValueError` where a file of it cannot be read."""
    start, result = run.start(), None
    if state in ("done", "damaged"):
        with contextlib.suppress(ValueError, FileNotFoundError):  # the result itself is damaged
            result = run.result()
    hardware = start.hardware if start else {}
    tags = {
        "dataset": spec.dataset.name,
        "kind": kind_of(spec),
        "method": method_of(spec),
        "seed": str(spec.seed),
        "device": result.device if result else hardware.get("model", ""),
        "precision": result.precision if result else hardware.get("precision", ""),
        "state": state,
        "reason": run.reason()[:500] if state in ("failed", "damaged") else "",
        f"grid.{grid}": "yes",
    }
    if isinstance(spec, FinetuneSpec):
        tags |= {"fraction": f"{spec.label_fraction:g}", "arm": spec.arm, "backbone": spec.backbone}
    return Record(
        id=run.id,
        state=state,
        params=flat({name: value for name, value in to_json(spec).items() if name != "kind"}),
        tags={name: value for name, value in tags.items() if value},
        epochs=[_points(row) for row in files.read_jsonl(run["metrics"]) if _is_epoch(row)],
        result={f"result/{name}": value for name, value in _numbers(result.flat()).items()} if result else {},
        files=[run["result"]] if result else [],
        began=run["start" if run["start"].exists() else "spec"].stat().st_mtime,
        ended=_written(run) if state in ENDED else None,
    )


def report_record(grid: str, folder: Path) -> Record | None:
    """A grid's report as `report` wrote it into `folder`; None where it has not."""
    found = sorted(path for path in folder.glob("report.*") if path.is_file())
    if not found:
        return None
    when = max(path.stat().st_mtime for path in found)
    tags = {"kind": "report", f"grid.{grid}": "yes", "state": "done"}
    return Record(f"report-{re.sub(SIGNS, '_', folder.name)}", "done", tags=tags, files=found, began=when, ended=when)


def _is_epoch(row: Mapping[str, Any]) -> bool:
    return isinstance(row.get("step"), int) and _is_number(row.get("loss"))


def _points(row: Mapping[str, Any]) -> list[Point]:
    """The points of a line of metrics.jsonl; the first line also holds what was measured before the first step.

    Trackers show metrics in groups by what is before the slash, in alphabetical order: curves before `result`.
    """
    start, here = (
        {CURVES + name: value for name, value in _numbers(values).items() if name != "step"}
        for values in (row.get("start") or {}, row)
    )
    return [*([(0, start)] if start else []), (row["step"], here)]


def _numbers(values: Mapping[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in values.items() if _is_number(value)}


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)


def _written(run: Run) -> float | None:
    """When a run ended: the time of the file that says so."""
    times = [run[name].stat().st_mtime for name in ("result", "damaged", "error") if run[name].exists()]
    return min(times, default=None)
