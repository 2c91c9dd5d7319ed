"""Gathers runs into the cells of results tables: all seeds of a cell together, with the value that the paper prints."""

from __future__ import annotations

import contextlib
import csv
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from pipeline.core.seals import Damaged
from pipeline.data.shards.index import shards_of
from pipeline.jobs.plan import Plan
from pipeline.results.summed import score
from pipeline.runs.folder import Run
from pipeline.runs.identity import recipe, run_id, without_seed
from pipeline.runs.predictions import Predictions, read_predictions
from pipeline.runs.result import DEVICES, Result
from pipeline.runs.spec import DatasetRef, FinetuneSpec, method_of
from pipeline.study import paper
from pipeline.study.experiments import paper_runs

READER = "report"
METRICS = ("f1_micro", "f1_macro", "balanced_accuracy", "recall_micro", "accuracy", "auroc")


@dataclass(frozen=True)
class Printed:
    """A score of the paper, as printed there: mean and spread over its seeds."""

    table: int
    value: float
    spread: float


@dataclass
class ImageGroups:
    """The patient or lesion of each image of a dataset, read from its shards when first asked for."""

    root: Path
    """The folder of all shards."""
    ref: DatasetRef
    size: int
    unknown: str = field(default="", init=False)
    """Why they could not be read; known once they were asked for."""

    @cached_property
    def by_key(self) -> Mapping[str, str]:
        """The known groups, by an image's key; none where the shards are not on this machine."""
        try:
            shards = shards_of(self.root, self.ref, size=self.size)
            return {} if shards.manifest.get("groups") == 0 else shards.groups()
        except (ValueError, FileNotFoundError) as error:
            self.unknown = str(error)
            return {}


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
    groups: ImageGroups | None = None
    drawn: dict[tuple[str, tuple[int, ...]], Any] = field(default_factory=dict, repr=False, compare=False)
    """What `bootstrap` computed of its predictions, by metric and the seeds that it read: each is resampled once."""

    @cached_property
    def predictions(self) -> dict[int, Predictions]:
        """The stored predictions of its finished seeds, read once; damaged ones are left out and noted in `damage`."""
        return self._stored("predictions")

    @cached_property
    def validation(self) -> dict[int, Predictions]:
        """As `predictions`, of the validation images; runs of earlier code stored none."""
        return self._stored("val_predictions")

    @cached_property
    def val_scores(self) -> dict[int, float]:
        """The score of its metric on the validation images of each finished seed, with the weights that are stored."""
        found = {seed: score(each, self.metric, self.task) for seed, each in self.validation.items()}
        return {seed: value for seed, value in found.items() if value is not None}

    def _stored(self, name: str) -> dict[int, Predictions]:
        found = {}
        for seed in sorted(self.results):
            try:
                found[seed] = predictions_of(self.runs[seed], name)
            except FileNotFoundError:
                continue
            except Damaged as error:
                self.damage[seed] = str(error)
        return found

    @property
    def all_runs(self) -> list[Run]:
        """Every run that its scores are of."""
        return list(self.runs.values())

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
    def task(self) -> str:
        """`multi-class` or `multi-label`, of its finished runs."""
        tasks = {result.task for result in self.results.values()}
        return "multi-class" if tasks == {"multi-class"} else "multi-label"

    @property
    def mixed(self) -> bool:
        """Whether its runs, or the pretraining runs that they start from, used different devices or precisions."""
        if any(r.devices or (r.notes.get("parent") or {}).get(DEVICES) for r in self.results.values()):
            return True
        return len({(r.device, r.precision, str(r.notes.get("parent"))) for r in self.results.values()}) > 1


def cells(plan: Plan) -> list[Cell]:
    """The cells of a grid, in the grid's order; with printed values where the grid repeats the paper's runs.

    Raises `ValueError` where two different runs of the same seed belong to one cell.
    """
    printed, repeated = printed_results(), paper_runs(plan.entries, plan.datasets, plan.preset)
    infos = {dataset.ref: dataset for dataset in plan.datasets}
    named = {dataset.ref.name: dataset for dataset in plan.datasets}
    groups: dict[tuple[DatasetRef, int], ImageGroups] = {}
    found: dict[tuple[str, ...], Cell] = {}
    for entry in plan.entries:
        spec, name = entry.spec, entry.spec.dataset.name
        info = infos.get(spec.dataset) or named[name]
        metric = plan.preset.metrics.get(name) or plan.preset.metrics.get("*") or info.metric
        key = (entry.experiment, info.title, *entry.row, entry.column, run_id(without_seed(spec)))
        if key not in found:
            images = ImageGroups(Path(plan.cluster.shards), spec.dataset, spec.image_size)
            images = groups.setdefault((spec.dataset, spec.image_size), images)
            found[key] = Cell(entry.experiment, info.title, entry.row, entry.column, metric, spec, groups=images)
            found[key].key = entry.key
            of_paper = metric in (info.metric, paper.preset("notebook").metrics.get(name))  # those that it prints
            if of_paper and key[-1] in repeated:
                found[key].printed = printed.get((entry.experiment, name, entry.key, entry.column))
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


def predictions_of(run: Run, name: str = "predictions") -> Predictions:
    """A finished run's predictions; raises `Damaged`, and marks the run, where they are not what it wrote.

    name: `predictions`, or `val_predictions`, which runs of earlier code do not have (`FileNotFoundError`).
    """
    run.check(name, READER)
    try:
        return read_predictions(run[name])
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
