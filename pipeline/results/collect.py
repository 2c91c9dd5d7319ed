"""Finished runs gathered into cells: every seed of one (dataset, method, backbone, label fraction) in one place."""

from __future__ import annotations

import csv
import statistics
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.jobs.plan import Plan
from pipeline.runs import Result
from pipeline.spec import FinetuneSpec, method_of, run_id

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
    wanted: int = 0
    results: list[Result] = field(default_factory=list)
    printed: Printed | None = None

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
        """Whether the seeds ran on different devices or in different precisions."""
        return len({(r.device, r.precision) for r in self.results}) > 1


def cells(plan: Plan) -> list[Cell]:
    """The cells of a grid, in the grid's order."""
    printed = printed_results()
    metrics = {card.ref.name: card.metric for card in plan.cards}
    wanted: dict[tuple[Any, ...], dict[str, FinetuneSpec]] = {}
    for spec in plan.wanted:
        key = (spec.dataset.name, method_of(spec), spec.arm, spec.backbone, spec.label_fraction)
        wanted.setdefault(key, {})[run_id(spec)] = spec
    out = []
    for key, specs in wanted.items():
        dataset, method, arm, backbone, fraction = key
        chosen = plan.preset.metrics.get(dataset) or plan.preset.metrics.get("*") or metrics[dataset]
        cell = Cell(dataset, method, arm, backbone, fraction, chosen, wanted=len(specs))
        cell.printed = printed.get((dataset, method, arm, fraction))
        for identity in specs:
            item = plan.items[identity]
            if item.state == "done":
                cell.results.append(item.run.result())
        out.append(cell)
    return out


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
