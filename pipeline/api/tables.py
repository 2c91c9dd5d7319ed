"""Results as Arrow tables: a row a run, a row a cell of the report's table, a row a prediction; one run by its id."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.api.plans import read_plan
from pipeline.core import files
from pipeline.jobs.plan import Plan, PlannedRun
from pipeline.results import collect
from pipeline.results.collect import METRICS
from pipeline.runs.cluster import load_cluster
from pipeline.runs.folder import Run, find_run
from pipeline.runs.identity import to_json
from pipeline.runs.result import Result
from pipeline.runs.spec import FinetuneSpec, kind_of, method_of

if TYPE_CHECKING:
    import pyarrow as pa

PARTS = {"test": "predictions", "val": "val_predictions"}


def results(
    grid: str | Path,
    *,
    datasets: Sequence[str] | None = None,
    seeds: int | None = None,
    preset: str = "paper",
    weights: Sequence[str] | None = None,
    cluster: str | Path = "local",
) -> pa.Table:
    """A `pyarrow.Table` of a grid's runs, a row each, finished or not; arguments as for `make_plan`.

    Strings: run, kind (`pretrain`, `finetune`), state, dataset, method, backbone and arm (null of pretraining), parent
    (the pretraining run, or null). Numbers: seed, label_fraction (null of pretraining), image_size, and where the run
    is done epochs, seconds, and of fine-tunes the test scores f1_micro, f1_macro, balanced_accuracy, recall_micro,
    accuracy, auroc in [0, 1] (null where a score is not defined). `collapsed`: a list of arms.
    """
    import pyarrow as pa

    plan = read_plan(grid, datasets, seeds, preset, weights, cluster)
    rows = [_run_row(plan, planned) for planned in plan.runs.values()]
    text, number, real = pa.string(), pa.int64(), pa.float64()
    fields = [(name, text) for name in ("run", "kind", "state", "dataset", "method", "backbone", "arm", "parent")]
    fields += [("seed", number), ("label_fraction", real), ("image_size", number), ("epochs", number)]
    fields += [("seconds", real), *((name, real) for name in METRICS), ("collapsed", pa.list_(text))]
    return pa.Table.from_pylist(rows, schema=pa.schema(fields))


def _run_row(plan: Plan, planned: PlannedRun) -> dict[str, Any]:
    run, spec = planned.run, planned.spec
    row: dict[str, Any] = {
        "run": run.id,
        "kind": kind_of(spec),
        "state": planned.state,
        "dataset": plan.title_of(spec.dataset),
        "method": method_of(spec),
        "parent": planned.parent,
        "seed": spec.seed,
        "image_size": spec.image_size,
    }
    if isinstance(spec, FinetuneSpec):
        row |= {"backbone": spec.backbone, "arm": spec.arm, "label_fraction": spec.label_fraction}
    if planned.state == "done":
        result = run.result()
        row |= {"epochs": result.epochs, "seconds": result.seconds, "collapsed": result.collapsed}
        row |= {name: result.metrics.get(name) for name in METRICS}
    return row


def summary(
    grid: str | Path,
    *,
    datasets: Sequence[str] | None = None,
    seeds: int | None = None,
    preset: str = "paper",
    weights: Sequence[str] | None = None,
    cluster: str | Path = "local",
) -> pa.Table:
    """A `pyarrow.Table` of the cells of a grid's tables: what `report` prints, over seeds; arguments as for
    `make_plan`.

    Strings: experiment, dataset, row (`technique | network`), column (`10%`), method, backbone, metric. Numbers: n and
    wanted (finished and wanted seeds), mean and sd over the seeds of that metric (null without runs; sd of fewer than
    two).
    """
    import pyarrow as pa

    plan = read_plan(grid, datasets, seeds, preset, weights, cluster)
    rows = [
        {
            "experiment": cell.experiment,
            "dataset": cell.dataset,
            "row": " | ".join(cell.row),
            "column": cell.column,
            "method": cell.method,
            "backbone": cell.backbone,
            "metric": cell.metric,
            "n": len(cell.values(cell.metric)),
            "wanted": cell.wanted,
            "mean": cell.mean(cell.metric),
            "sd": cell.deviation(cell.metric),
        }
        for cell in collect.cells(plan)
    ]
    names = ("experiment", "dataset", "row", "column", "method", "backbone", "metric")
    fields = [(name, pa.string()) for name in names] + [(name, pa.int64()) for name in ("n", "wanted")]
    fields += [(name, pa.float64()) for name in ("mean", "sd")]
    return pa.Table.from_pylist(rows, schema=pa.schema(fields))


def predictions(
    grid: str | Path,
    *,
    part: str = "test",
    datasets: Sequence[str] | None = None,
    seeds: int | None = None,
    preset: str = "paper",
    weights: Sequence[str] | None = None,
    cluster: str | Path = "local",
) -> pa.Table:
    """A `pyarrow.Table` of what a grid's finished fine-tunes said of labelled images, a row a run and image.

    part: `test` or `val`. Strings: run, dataset, method, backbone, arm, key, group (the patient or lesion; null where
    shards are not here or know none). Numbers: seed, label_fraction. true, predicted: lists of class names; predicted
    is the class of the highest score, or where an image may have several each above 0.5. Then `score:<class>` for
    each class of any of the datasets: float32, a sigmoid in [0, 1], null where the run has no such class.
    """
    import pyarrow as pa

    if part not in PARTS:
        raise ValueError(f"part is {part!r}; known: {', '.join(PARTS)}")
    plan = read_plan(grid, datasets, seeds, preset, weights, cluster)
    found = list(_blocks(plan, PARTS[part]))
    classes = list(dict.fromkeys(name for block in found for name in block if name.startswith("score:")))
    text = pa.string()
    fields = [(name, text) for name in ("run", "dataset", "method", "backbone", "arm")]
    fields += [("seed", pa.int64()), ("label_fraction", pa.float64()), ("key", text), ("group", text)]
    fields += [("true", pa.list_(text)), ("predicted", pa.list_(text)), *((name, pa.float32()) for name in classes)]
    schema = pa.schema(fields)
    tables = []
    for block in found:
        count = len(block["key"])
        columns = [pa.array(block[name], kind) if name in block else pa.nulls(count, kind) for name, kind in fields]
        tables.append(pa.Table.from_arrays(columns, schema=schema))
    return pa.concat_tables(tables) if tables else schema.empty_table()


def _blocks(plan: Plan, file: str) -> Iterator[dict[str, Any]]:
    """The columns of each finished fine-tune's predictions."""
    groups: dict[tuple[Any, int], collect.ImageGroups] = {}
    for planned in plan.in_state("done"):
        spec, run = planned.spec, planned.run
        if not isinstance(spec, FinetuneSpec) or not run[file].exists():
            continue
        stored = collect.predictions_of(run, file)
        place = spec.dataset, spec.image_size
        known = groups.setdefault(place, collect.ImageGroups(Path(plan.cluster.shards), *place)).by_key
        count, chosen = len(stored.keys), _predicted(stored.scores, run.result())
        yield {
            "run": [run.id] * count,
            "dataset": [plan.title_of(spec.dataset)] * count,
            "method": [method_of(spec)] * count,
            "backbone": [spec.backbone] * count,
            "arm": [spec.arm] * count,
            "seed": [spec.seed] * count,
            "label_fraction": [spec.label_fraction] * count,
            "key": stored.keys,
            "group": [known.get(key) for key in stored.keys],
            "true": [_named(stored.classes, row) for row in stored.targets.astype(bool)],
            "predicted": [_named(stored.classes, row) for row in chosen],
            **{f"score:{name}": stored.scores[:, i] for i, name in enumerate(stored.classes)},
        }


def _predicted(scores: np.ndarray, result: Result) -> np.ndarray:
    """Which classes are predicted: bool [n, classes]."""
    if result.task != "multi-class":
        return np.asarray(scores > 0.5)
    return np.asarray(np.arange(scores.shape[1]) == scores.argmax(axis=1)[:, None])


def _named(classes: Sequence[str], chosen: np.ndarray) -> list[str]:
    return [name for name, is_chosen in zip(classes, chosen, strict=True) if is_chosen]


@dataclass(frozen=True)
class RunRecord:
    """A run, as its folder says it."""

    id: str
    folder: Path
    kind: str
    """`pretrain` or `finetune`."""
    state: str
    """`done`, `damaged`, `running`, `interrupted`, `failed`, `pending`."""
    spec: dict[str, Any]
    """The whole description that its id is the hash of."""
    metrics: dict[str, Any]
    """Scores of a finished run; empty before."""
    seconds: float | None
    """Of training and validation; None before it is done, as all that follows."""
    epochs: int | None
    device: str | None
    precision: str | None

    def curves(self) -> pa.Table:
        """A `pyarrow.Table`, a row an epoch: epoch (int64), and float64 `loss`, `val_…`, … as far as they are known."""
        import pyarrow as pa

        path = Run(self.folder)["metrics"]
        rows = files.read_jsonl(path) if path.exists() else []
        plain = [{k: float(v) for k, v in row.items() if isinstance(v, (int, float))} for row in rows]
        names = [name for name in dict.fromkeys(name for row in plain for name in row) if name != "epoch"]
        columns = {"epoch": pa.array([int(row["epoch"]) for row in plain], pa.int64())}
        return pa.table(columns | {name: pa.array([row.get(name) for row in plain], pa.float64()) for name in names})


def open_run(run: str | Path, *, cluster: str | Path = "local") -> RunRecord:
    """A run by its id, a part of its id that no other has, or the path of its folder."""
    found = find_run(Path(load_cluster(str(cluster)).runs), str(run))
    spec, state = found.spec, found.state()
    result = found.result() if state == "done" else None
    return RunRecord(
        id=found.id,
        folder=found.folder,
        kind=kind_of(spec),
        state=state,
        spec=to_json(spec),
        metrics=dict(result.metrics) if result else {},
        seconds=result.seconds if result else None,
        epochs=result.epochs if result else None,
        device=result.device if result else None,
        precision=result.precision if result else None,
    )
