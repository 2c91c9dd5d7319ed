"""By patient or lesion: the scores of groups next to those of their images, with intervals over groups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.jobs.plan import Plan
from pipeline.learn.by_group import Choice, Units, choose, grouped
from pipeline.results import bootstrap, resampled, texts
from pipeline.results.collect import Cell
from pipeline.results.resampled import Interval
from pipeline.results.tables import Table


@dataclass(frozen=True)
class Comparison:
    """A cell's score over its test images and over their groups."""

    cell: Cell
    choice: Choice
    images: int
    groups: int
    """Those that are scored."""
    alone: int
    """Images without a group, among the groups."""
    mixed: int
    """Groups of mixed labels."""
    present: int
    """Classes that a scored group has, of `classes`."""
    classes: int
    by_image: list[float]
    """The score of each seed."""
    image_interval: Interval
    """Over resampled groups: of the mean over seeds."""
    by_group: list[float]
    group_interval: Interval


def compare(cells: Sequence[Cell]) -> list[Comparison]:
    """The cells with a finished run whose test images have groups of several images."""
    found = (_compare(cell, cell.groups.by_key) for cell in cells if cell.results and cell.groups)
    return [each for each in found if each is not None]


def _compare(cell: Cell, groups: Mapping[str, str]) -> Comparison | None:
    test = list(cell.predictions.values()) if groups else []
    if not test or any(each.keys != test[0].keys for each in test):
        return None
    units = Units.of_images(test[0].keys, groups)
    if len(units.names) == len(units.of):
        return None
    val = list(cell.validation.values())
    choice = choose(val if len(val) == len(test) else [], groups, cell.metric, cell.task)
    made = [grouped(each, units, choice.rule, cell.task) for each in test]
    of_groups = [each.predictions for each in made]
    if not of_groups[0].keys:
        return None
    alone = np.arange(len(of_groups[0].keys))
    return Comparison(
        cell=cell,
        choice=choice,
        images=len(units.of),
        groups=len(of_groups[0].keys),
        alone=units.alone,
        mixed=made[0].mixed,
        present=int(of_groups[0].targets.any(axis=0).sum()),
        classes=len(of_groups[0].classes),
        by_image=resampled.scores(test, cell.metric, cell.task),
        image_interval=bootstrap.cell_interval(cell),
        by_group=resampled.scores(of_groups, cell.metric, cell.task),
        group_interval=resampled.interval(of_groups, cell.metric, cell.task, alone),
    )


# --- Tables ----------------------------------------------------------------------------------------------------------


def tables(plan: Plan, cells: Sequence[Cell]) -> list[Table]:
    """A table for each experiment and dataset whose test images have groups."""
    found = compare(cells)
    keys = dict.fromkeys((each.cell.experiment, each.cell.dataset) for each in found)
    return [_table([each for each in found if (each.cell.experiment, each.cell.dataset) == key], plan) for key in keys]


def _table(members: Sequence[Comparison], plan: Plan) -> Table:
    cell = members[0].cell
    labels = (*(f"setting {number}" for number in range(1, len(cell.row) + 1)), "labels")
    header = (*labels, "by image", "95 %", "by patient or lesion", "95 %", "rule")
    rows = [
        (
            *each.cell.row,
            each.cell.column,
            texts.mean_of(each.by_image),
            texts.interval(each.image_interval),
            texts.mean_of(each.by_group),
            texts.interval(each.group_interval),
            each.choice.rule,
        )
        for each in members
    ]
    metric = texts.METRIC_TITLES[cell.metric]
    title = f"{cell.dataset}: by patient or lesion, {cell.experiment}, test {metric}"
    return Table(None, title, len(labels), header, rows, (*_notes(members), *filter(None, [texts.stand_in_note(plan)])))


def _notes(members: Sequence[Comparison]) -> list[str]:
    first = members[0]
    single = first.cell.task == "multi-class"  # then those of mixed labels are not scored
    out = [
        f"{first.images} test images of {first.groups + (first.mixed if single else 0)} groups"
        + (f"; {first.alone} images have no group, each counts as one" if first.alone else ""),
        "mean ± sample standard deviation over seeds (number of seeds); 95 %: of the mean, over resampled groups",
        "rule: how a group's score follows from those of its images, chosen on validation groups by the same metric",
    ]
    if first.mixed:
        what = "left out of the scores by group" if single else "they count for each label of an image"
        out.append(f"groups whose images have different labels: {first.mixed}, {what}")
    if first.cell.metric == "f1_macro" and first.present < first.classes:
        most = f"at most {first.present / first.classes:.4f} ({first.present} of {first.classes} classes have groups)"
        out.append(f"F1 (macro) counts classes without a group as 0: by patient or lesion {most}")
    reasons = dict.fromkeys(each.choice.reason for each in members if not each.choice.reason.startswith("validation "))
    out += [f"where the rule is the mean because {reason}" for reason in reasons]
    return out
