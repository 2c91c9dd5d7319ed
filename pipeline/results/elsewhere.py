"""On other data: the scores of a grid's fine-tunes on datasets that they were not trained on (`evaluate`)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pipeline.jobs.plan import Plan
from pipeline.learn.by_group import Units
from pipeline.results import resampled, texts
from pipeline.results.collect import Cell
from pipeline.results.tables import Table
from pipeline.runs import evaluation
from pipeline.runs.evaluation import Evaluation
from pipeline.runs.predictions import Predictions


@dataclass(frozen=True)
class Tested:
    """The finished seeds of a cell that were tested on one other dataset in one way."""

    cell: Cell
    found: list[tuple[Evaluation, Predictions]]

    @property
    def first(self) -> Evaluation:
        return self.found[0][0]

    @property
    def key(self) -> tuple[str, ...]:
        """What is one table."""
        first = self.first
        of_patients = str(evaluation.OF_PATIENT in first.left_out)  # which earlier code scored
        return self.cell.experiment, self.cell.dataset, first.dataset, first.fingerprint, of_patients

    def scores(self) -> list[float]:
        values = [each.metrics.get(self.cell.metric) for each, _ in self.found]
        return [float(value) for value in values if value is not None]

    def interval(self) -> resampled.Interval:
        """Over resampled groups, else images: of the mean over seeds."""
        seeds = [predictions for _, predictions in self.found]
        if any(each.keys != seeds[0].keys for each in seeds):
            return None
        named = zip(seeds[0].keys, seeds[0].groups or [], strict=False)
        units = Units.of_images(seeds[0].keys, {key: group for key, group in named if group is not None})
        ends = resampled.interval(seeds, self.cell.metric, self.first.task, units.of)
        if ends is None or self.cell.metric != "f1_macro":
            return ends
        share = _present(self.first) / len(seeds[0].classes)  # `summed` counts classes without images as 0
        return ends[0] / share, ends[1] / share


def _present(found: Evaluation) -> int:
    """How many classes have an image."""
    return sum(each["support"] > 0 for each in found.metrics["per_class"].values())


def tables(plan: Plan, cells: Sequence[Cell]) -> list[Table]:
    """A table for each experiment, dataset and other dataset that a run of it was tested on."""
    found = [each for cell in cells for each in _tested(cell)]
    keys = dict.fromkeys(each.key for each in found)
    return [_table([each for each in found if each.key == key], plan) for key in keys]


def _tested(cell: Cell) -> Iterable[Tested]:
    by_dataset: dict[tuple[str, ...], list[tuple[Evaluation, Predictions]]] = {}
    for seed in cell.results:
        for each, predictions in evaluation.all_of(cell.runs[seed]):
            way = (each.dataset, each.fingerprint, str(each.mapping), str(evaluation.OF_PATIENT in each.left_out))
            by_dataset.setdefault(way, []).append((each, predictions))
    return [Tested(cell, found) for found in by_dataset.values()]


def _table(members: Sequence[Tested], plan: Plan) -> Table:
    cell, first = members[0].cell, members[0].first
    labels = (*(f"setting {number}" for number in range(1, len(cell.row) + 1)), "labels")
    rows = [
        (
            *each.cell.row,
            each.cell.column,
            texts.mean_of(each.cell.values(cell.metric)),
            texts.mean_of(each.scores()),
            texts.interval(each.interval()),
            str(each.first.images),
            str(len(each.first.twins)),
        )
        for each in members
    ]
    title = f"{cell.dataset} on other data: {first.dataset}, {cell.experiment}, {texts.METRIC_TITLES[cell.metric]}"
    header = (*labels, f"test of {cell.dataset}", f"on {first.dataset}", "95 %", "images", "twins")
    return Table(
        None,
        title,
        len(labels),
        header,
        rows,
        (
            *_notes(first),
            *texts.absent_notes([each.cell for each in members]),
            *filter(None, [texts.stand_in_note(plan)]),
        ),
    )


def _notes(first: Evaluation) -> list[str]:
    out = [
        "mean ± sample standard deviation over seeds (number of seeds); 95 %: of the mean on the other data, over "
        "resampled groups, else images",
        "classes, theirs → ours: " + ", ".join(f"{their} → {our}" for their, our in first.mapping.items()),
        "left out: "
        + ("; ".join(f"{count} ({reason})" for reason, count in first.left_out.items() if count) or "none"),
        "twins: images that show the same as one that the run has seen (exact, near, mirrored); none is scored",
    ]
    present, classes = _present(first), len(first.metrics["per_class"])
    if present < classes:
        out.append(f"{present} of our {classes} classes have images there; F1 (macro) is of these")
    if first.differs:
        out.append("stored in another way: " + "; ".join(first.differs))
    return out
