"""Gathers runs into the cells of results tables: all seeds of a cell together, with the value that the paper prints."""

from __future__ import annotations

import contextlib
import csv
import functools
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.core.seals import Damaged
from pipeline.data.shards.index import shards_of
from pipeline.jobs.plan import Plan
from pipeline.runs.folder import Run
from pipeline.runs.identity import recipe, run_id, without_seed
from pipeline.runs.predictions import Predictions, read_predictions
from pipeline.runs.result import Result
from pipeline.runs.spec import DatasetRef, FinetuneSpec, method_of
from pipeline.study import paper

READER = "report"
METRICS = ("f1_micro", "f1_macro", "balanced_accuracy", "recall_micro", "accuracy", "auroc")


@dataclass(frozen=True)
class Printed:
    """A score of the paper, as printed there: mean and spread over its seeds."""

    table: int
    value: float
    spread: float


@dataclass
class Cell:
    """One cell of a results table: its runs and their scores."""

    experiment: str
    dataset: str
    row: tuple[str, ...]
    column: str
    metric: str
    """The metric that its table shows."""
    spec: FinetuneSpec
    """The spec of its first seed."""
    runs: dict[int, Run] = field(default_factory=dict)
    """All its runs, by seed."""
    results: dict[int, Result] = field(default_factory=dict)
    """The results of its finished runs, by seed; also of those that only lost another file."""
    damage: dict[int, str] = field(default_factory=dict)
    """What is wrong with what its finished runs left, by seed."""
    printed: Printed | None = None
    key: str = ""
    """The row as the paper prints it."""
    groups: Callable[[], Mapping[str, str]] = dict
    """Reads the groups of its test images that have one, by key."""
    drawn: dict[tuple[int, ...], Any] = field(default_factory=dict, repr=False, compare=False)
    """What `bootstrap` computed of its predictions, by the seeds that it read: each file is read once."""

    @property
    def method(self) -> str:
        return method_of(self.spec)

    @property
    def arm(self) -> str:
        return self.spec.arm

    @property
    def backbone(self) -> str:
        return self.spec.backbone

    @property
    def label_fraction(self) -> float:
        return self.spec.label_fraction

    @property
    def variant(self) -> str:
        """Four hexadecimal digits for its recipe, the same for all label fractions."""
        return recipe(self.spec)[-4:]

    @property
    def wanted(self) -> int:
        return len(self.runs)

    @property
    def status(self) -> str:
        """`complete`, `partial` or `missing`."""
        return "complete" if len(self.results) == self.wanted else "partial" if self.results else "missing"

    def scores(self, metric: str) -> dict[int, float]:
        """The scores of the finished seeds for which the metric is defined, by seed."""
        found = {seed: result.metrics.get(metric) for seed, result in sorted(self.results.items())}
        return {seed: value for seed, value in found.items() if value is not None}

    def values(self, metric: str) -> list[float]:
        return list(self.scores(metric).values())

    def mean(self, metric: str) -> float | None:
        values = self.values(metric)
        return statistics.fmean(values) if values else None

    def deviation(self, metric: str) -> float | None:
        """The sample standard deviation over seeds; None for fewer than two seeds."""
        values = self.values(metric)
        return statistics.stdev(values) if len(values) > 1 else None

    @property
    def mixed(self) -> bool:
        """Whether its runs, or the pretraining runs that they start from, used different devices or precisions."""
        return len({(r.device, r.precision, str(r.notes.get("parent"))) for r in self.results.values()}) > 1


def cells(plan: Plan) -> list[Cell]:
    """The cells of a grid, in the grid's order.

    Raises `ValueError` where two different runs of the same seed belong to one cell.
    """
    printed = printed_results()
    own_metric = {dataset.ref.name: dataset.metric for dataset in plan.datasets}
    found: dict[tuple[str, ...], Cell] = {}
    groups: dict[tuple[DatasetRef, int], Callable[[], Mapping[str, str]]] = {}
    for entry in plan.entries:
        spec, dataset = entry.spec, entry.spec.dataset.name
        own = own_metric[dataset]
        metric = plan.preset.metrics.get(dataset) or plan.preset.metrics.get("*") or own
        key = (entry.experiment, dataset, *entry.row, entry.column, run_id(without_seed(spec)))
        if key not in found:
            found[key] = Cell(entry.experiment, dataset, entry.row, entry.column, metric, spec)
            found[key].key = entry.key
            shards = spec.dataset, spec.image_size
            found[key].groups = groups.setdefault(shards, functools.cache(functools.partial(_groups, plan, *shards)))
            if metric in (own, paper.preset("notebook").metrics.get(dataset)):  # the metrics that the paper prints
                found[key].printed = printed.get((entry.experiment, dataset, entry.key, entry.column))
        planned = plan.runs[run_id(spec)]
        if (other := found[key].runs.setdefault(spec.seed, planned.run)).id != planned.run.id:
            raise ValueError(
                f"{other.id} and {planned.run.id} have the same seed and belong to the same cell of a table; "
                "give a fine-tune and its pretraining run the same seed"
            )
        if planned.state == "damaged":
            found[key].damage[spec.seed] = planned.run.reason()
        if planned.state in ("done", "damaged"):
            with contextlib.suppress(ValueError, FileNotFoundError):  # the result itself is damaged
                found[key].results[spec.seed] = planned.run.result()
    return list(found.values())


def _groups(plan: Plan, dataset: DatasetRef, size: int) -> Mapping[str, str]:
    """The groups of a dataset's test images that have one, by key; none where the shards are gone."""
    try:
        shards = shards_of(Path(plan.cluster.shards), dataset, size=size)
        keys, of_images = shards.rows["key"], shards.rows["group"]
        return {keys[row]: of_images[row] for row in shards.of_split("test") if of_images[row] is not None}
    except (ValueError, OSError):
        return {}


def predictions_of(run: Run) -> Predictions:
    """A finished run's predictions; raises `Damaged`, and marks the run, where they are not what it wrote."""
    run.check("predictions", READER)
    try:
        return read_predictions(run["predictions"])
    except ValueError as error:  # of earlier code, without a checksum
        run.mark_damaged(str(error), READER)
        raise Damaged(str(error)) from error


def printed_results() -> dict[tuple[str, str, str, str], Printed]:
    """The scores of the paper's Tables 3 to 21, by (experiment, dataset, row, column)."""
    with open(Path(__file__).parent / "printed.csv", newline="", encoding="utf-8") as file:
        return {
            (row["experiment"], row["dataset"], row["row"], row["column"]): Printed(
                int(row["table"]), float(row["value"]), float(row["spread"])
            )
            for row in csv.DictReader(file)
        }


def collapsed(plan: Plan) -> list[str]:
    """Pretraining runs whose arms collapsed, as `run: arms`."""
    out = []
    for planned in plan.runs.values():
        if planned.state == "done" and not isinstance(planned.spec, FinetuneSpec):
            if arms := planned.run.result().collapsed:
                out.append(f"{planned.name}: {', '.join(arms)}")
    return out


def damaged(plan: Plan, cells: Sequence[Cell]) -> list[str]:
    """What is wrong with what finished runs left, as `run: what`; call it after what reads their files."""
    found = {planned.run.id: planned.run.reason() for planned in plan.in_state("damaged")}
    for cell in cells:
        found |= {cell.runs[seed].id: text for seed, text in cell.damage.items()}
    return [f"{run}: {text}" for run, text in found.items()]
