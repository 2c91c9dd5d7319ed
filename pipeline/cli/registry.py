"""A registry of runs: one Parquet file with a row for each, for those who want no tracker."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.cli.status_text import Row
from pipeline.core import files
from pipeline.jobs.plan import PlannedRun
from pipeline.runs.folder import Run
from pipeline.runs.identity import to_json
from pipeline.runs.spec import FinetuneSpec, Spec, kind_of, method_of
from pipeline.runs.values import flat

FIRST = ("run", "state", "job", "says")


def write_registry(path: Path, rows: Sequence[Row], planned: Mapping[str, PlannedRun], runs: Path) -> None:
    """Write a row for each of the rows of `status`: what it says, then the spec, then the result.

    planned: the runs of the grid by id; of others in the folder `runs` the spec is read there. Columns are those that
    any run has, null where a run has none. The file is complete or as it was.
    """
    import pyarrow as pa
    import pyarrow.parquet as parquet

    found = [_row(row, planned.get(row["run"]), Run(runs / row["run"])) for row in rows]
    names = dict.fromkeys(name for row in found for name in row)
    table = pa.table({name: pa.array(_alike([row.get(name) for row in found])) for name in names})
    with files.publish(path) as file:
        parquet.write_table(table, file)


def _row(row: Row, planned: PlannedRun | None, run: Run) -> dict[str, Any]:
    out = {name: row[name] for name in FIRST}
    with contextlib.suppress(ValueError, OSError):  # of a damaged folder
        out |= _of_spec(planned.spec if planned else run.spec)
    if row["state"] in ("done", "damaged"):
        with contextlib.suppress(ValueError, OSError):
            out |= {f"result.{name}": value for name, value in run.result().flat().items()}
    return out


def _of_spec(spec: Spec) -> dict[str, Any]:
    """What tells runs apart by plain names, then all of the spec by dotted ones."""
    out: dict[str, Any] = {"dataset": spec.dataset.name, "kind": kind_of(spec), "method": method_of(spec)}
    out["seed"] = spec.seed
    if isinstance(spec, FinetuneSpec):
        out |= {"arm": spec.arm, "backbone": spec.backbone, "label_fraction": spec.label_fraction}
    return out | {f"spec.{name}": value for name, value in flat(to_json(spec)).items()}


def _alike(values: Sequence[Any]) -> list[Any]:
    """The values of a column with one type: all numbers as floats where some are, all as text where some are text."""
    kinds = {type(value) for value in values if value is not None}
    if len(kinds) < 2:
        return list(values)
    kind = float if kinds == {int, float} else str
    return [value if value is None else kind(value) for value in values]
