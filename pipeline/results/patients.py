"""By patient or lesion: the scores of groups next to those of their images, with intervals over groups."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.core.seals import Damaged
from pipeline.data.shards.index import shards_of
from pipeline.jobs.plan import Plan
from pipeline.learn.by_group import Choice, Units, choose, grouped
from pipeline.results import collect, resampled, texts
from pipeline.results.collect import Cell
from pipeline.results.resampled import Interval
from pipeline.results.tables import Table
from pipeline.runs.predictions import Predictions


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
    by_image: list[float]
    """The score of each seed."""
    image_interval: Interval
    """Over resampled groups: of the mean over seeds."""
    by_group: list[float]
    group_interval: Interval


def compare(plan: Plan, cells: Sequence[Cell]) -> list[Comparison]:
    """The cells with a finished run whose test images have groups of several images."""
    groups_of = functools.cache(functools.partial(_groups, Path(plan.cluster.shards)))
    found = (_compare(cell, groups_of) for cell in cells if cell.results)
    return [each for each in found if each is not None]


def _groups(root: Path, name: str, fingerprint: str, size: int) -> Mapping[str, str]:
    """The groups of a dataset's images that have one, by key; none where its shards are not here."""
    from pipeline.runs.spec import DatasetRef

    try:
        rows = shards_of(root, DatasetRef(name=name, fingerprint=fingerprint), size=size).rows
        pairs = zip(rows["key"].array.to_pylist(), rows["group"].array.to_pylist(), strict=True)
        return {key: group for key, group in pairs if group is not None}
    except (ValueError, OSError):
        return {}


def _compare(cell: Cell, groups_of: Callable[[str, str, int], Mapping[str, str]]) -> Comparison | None:
    spec = cell.spec
    groups = groups_of(spec.dataset.name, spec.dataset.fingerprint, spec.image_size)
    test, val = _read(cell, "predictions") if groups else [], []
    if not test or any(each.keys != test[0].keys for each in test):
        return None
    units = Units.of_images(test[0].keys, groups)
    if len(units.names) == len(units.of):
        return None
    tasks = {result.task for result in cell.results.values()}
    task = "multi-class" if tasks == {"multi-class"} else "multi-label"
    val = _read(cell, "val_predictions")
    choice = choose(val if len(val) == len(test) else [], groups, cell.metric, task)
    made = [grouped(each, units, choice.rule, task) for each in test]
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
        by_image=resampled.scores(test, cell.metric, task),
        image_interval=resampled.interval(test, cell.metric, task, units.of),
        by_group=resampled.scores(of_groups, cell.metric, task),
        group_interval=resampled.interval(of_groups, cell.metric, task, alone),
    )


def _read(cell: Cell, name: str) -> list[Predictions]:
    """The stored predictions of a cell's finished seeds; those that are missing or damaged are left out, and noted."""
    out = []
    for seed in cell.results:
        try:
            out.append(collect.predictions_of(cell.runs[seed], name))
        except FileNotFoundError:
            continue
        except Damaged as error:
            cell.damage[seed] = str(error)
    return out


# --- Tables ----------------------------------------------------------------------------------------------------------


def tables(plan: Plan, cells: Sequence[Cell]) -> list[Table]:
    """A table for each experiment and dataset whose test images have groups."""
    found = compare(plan, cells)
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
    out = [
        f"{first.images} test images of {first.groups} groups"
        + (f"; {first.alone} images have no group, each counts as one" if first.alone else ""),
        "mean ± sample standard deviation over seeds (number of seeds); 95 %: of the mean, over resampled groups",
        "rule: how a group's score follows from those of its images, chosen on validation groups by the same metric",
    ]
    if first.mixed:
        scored = first.cell.results and all(r.task == "multi-class" for r in first.cell.results.values())
        what = "left out of the scores by group" if scored else "they count for each label of an image"
        out.append(f"groups whose images have different labels: {first.mixed}, {what}")
    reasons = dict.fromkeys(each.choice.reason for each in members if not each.choice.reason.startswith("validation "))
    out += [f"where the rule is the mean because {reason}" for reason in reasons]
    return out
