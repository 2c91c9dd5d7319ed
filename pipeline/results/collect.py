"""Finished runs gathered into cells: every seed of one place of a table, beside what the paper printed there."""

from __future__ import annotations

import csv
import statistics
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.jobs.plan import Plan
from pipeline.runs.folder import Result, Run
from pipeline.runs.identity import recipe, run_id, without_seed
from pipeline.runs.spec import FinetuneSpec, method_of
from pipeline.study import paper

METRICS = ("f1_micro", "f1_macro", "balanced_accuracy", "recall_micro", "accuracy", "auroc")


@dataclass(frozen=True)
class Printed:
    """A value of the paper, as printed there."""

    table: int
    value: float
    spread: float


@dataclass
class Cell:
    """What is known of one cell of a results table."""

    experiment: str
    dataset: str
    row: tuple[str, ...]
    column: str
    metric: str
    """The metric its table shows."""
    spec: FinetuneSpec
    """That of its first seed."""
    runs: dict[int, Run] = field(default_factory=dict)
    """Its runs by seed."""
    results: dict[int, Result] = field(default_factory=dict)
    """Of those that are done."""
    printed: Printed | None = None

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
        """A short name of its recipe, the same for all label fractions."""
        return recipe(self.spec)[-4:]

    @property
    def wanted(self) -> int:
        return len(self.runs)

    @property
    def status(self) -> str:
        """`complete`, `partial` or `missing`."""
        return "complete" if len(self.results) == self.wanted else "partial" if self.results else "missing"

    def scores(self, metric: str) -> dict[int, float]:
        """The scores of the finished seeds, where the metric is defined."""
        found = {seed: result.metrics.get(metric) for seed, result in sorted(self.results.items())}
        return {seed: value for seed, value in found.items() if value is not None}

    def values(self, metric: str) -> list[float]:
        return list(self.scores(metric).values())

    def mean(self, metric: str) -> float | None:
        values = self.values(metric)
        return statistics.fmean(values) if values else None

    def deviation(self, metric: str) -> float | None:
        """The sample standard deviation over seeds; None for fewer than two."""
        values = self.values(metric)
        return statistics.stdev(values) if len(values) > 1 else None

    @property
    def mixed(self) -> bool:
        """Whether the seeds, or the pretraining runs they start from, had different devices or precisions."""
        return len({(r.device, r.precision, str(r.notes.get("parent"))) for r in self.results.values()}) > 1


def cells(plan: Plan) -> list[Cell]:
    """The cells of a grid, in the grid's order."""
    printed = printed_results()
    own = {card.ref.name: card.metric for card in plan.datasets}
    found: dict[tuple[str, ...], Cell] = {}
    for place in plan.entries:
        spec, dataset = place.spec, place.spec.dataset.name
        metric = plan.preset.metrics.get(dataset) or plan.preset.metrics.get("*") or own[dataset]
        key = (place.experiment, dataset, *place.row, place.column, run_id(without_seed(spec)))
        if key not in found:
            found[key] = Cell(place.experiment, dataset, place.row, place.column, metric, spec)
            if metric in (own[dataset], paper.preset("notebook").metrics.get(dataset)):  # what the printed value is of
                found[key].printed = printed.get((place.experiment, dataset, place.key, place.column))
        item = plan.runs[run_id(spec)]
        if found[key].runs.setdefault(spec.seed, item.run).id != item.run.id:
            raise ValueError(
                f"{found[key].runs[spec.seed].id} and {item.run.id} stand in one cell with one seed; "
                "give a fine-tune and its pretraining run the same seed"
            )
        if item.state == "done":
            found[key].results[spec.seed] = item.run.result()
    return list(found.values())


def printed_results() -> dict[tuple[str, str, str, str], Printed]:
    """The paper's Tables 3 to 21 by (experiment, dataset, row, column)."""
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
    for item in plan.runs.values():
        if item.state == "done" and not isinstance(item.spec, FinetuneSpec):
            arms = item.run.result().notes.get("collapsed", [])
            if arms:
                out.append(f"{item.run.id}: {', '.join(arms)}")
    return out
