"""Finished runs gathered into cells: every seed of one (dataset, method, backbone, label fraction) in one place."""

from __future__ import annotations

import csv
import statistics
from dataclasses import dataclass, field
from pathlib import Path

from pipeline import paper
from pipeline.jobs.plan import Plan
from pipeline.runs import Result
from pipeline.spec import FinetuneSpec, method_of, recipe, run_id, without_seed

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

    dataset: str
    method: str
    arm: str
    backbone: str
    label_fraction: float
    metric: str
    """The metric its table shows."""
    variant: str
    runs: set[str] = field(default_factory=set)
    """The ids of its runs, one a seed."""
    results: list[Result] = field(default_factory=list)
    printed: Printed | None = None

    @property
    def wanted(self) -> int:
        return len(self.runs)

    def values(self, metric: str) -> list[float]:
        """The scores of the finished seeds, where the metric is defined."""
        return [r.metrics[metric] for r in self.results if r.metrics.get(metric) is not None]

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
        return len({(r.device, r.precision, str(r.notes.get("parent"))) for r in self.results}) > 1


def cells(plan: Plan) -> list[Cell]:
    """The cells of a grid, in the grid's order."""
    printed = printed_results()
    metrics = {card.ref.name: card.metric for card in plan.cards}
    found: dict[str, Cell] = {}
    for spec in plan.wanted:
        if not isinstance(spec, FinetuneSpec):
            continue
        dataset, method = spec.dataset.name, method_of(spec)
        chosen = plan.preset.metrics.get(dataset) or plan.preset.metrics.get("*") or metrics[dataset]
        cell = found.setdefault(
            run_id(without_seed(spec)),
            Cell(dataset, method, spec.arm, spec.backbone, spec.label_fraction, chosen, variant(spec)),
        )
        if chosen in (metrics[dataset], paper.preset("notebook").metrics.get(dataset)):  # what the paper's value is of
            cell.printed = printed.get((dataset, method, spec.arm, spec.label_fraction))
        cell.runs.add(run_id(spec))
    for cell in found.values():
        items = [plan.items[identity] for identity in sorted(cell.runs)]
        cell.results = [item.run.result() for item in items if item.state == "done"]
    return list(found.values())


def variant(spec: FinetuneSpec) -> str:
    """A short name for a recipe, the same for all its label fractions; tells rows apart that else look alike."""
    return recipe(spec)[-4:]


def printed_results() -> dict[tuple[str, str, str, float], Printed]:
    """The paper's Tables 3 to 6 by (dataset, method, arm, label fraction)."""
    with open(Path(__file__).parent / "printed.csv", newline="", encoding="utf-8") as file:
        return {
            (row["dataset"], row["method"], row["arm"], float(row["label_fraction"])): Printed(
                int(row["table"]), float(row["value"]), float(row["spread"])
            )
            for row in csv.DictReader(file)
        }


def collapsed(plan: Plan) -> list[str]:
    """Pretraining runs whose arms collapsed, as `run: arms`."""
    out = []
    for item in plan.items.values():
        if item.state == "done" and not isinstance(item.spec, FinetuneSpec):
            arms = item.run.result().notes.get("collapsed", [])
            if arms:
                out.append(f"{item.run.id}: {', '.join(arms)}")
    return out
