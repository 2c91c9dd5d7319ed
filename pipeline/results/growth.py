"""A dataset before and after it grew: the same technique on both shards, which are tested on the same images."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

from pipeline.data.shards import facts
from pipeline.data.shards.counts import counts_of
from pipeline.data.shards.index import Shards, shards_of
from pipeline.jobs.plan import Plan
from pipeline.results import leakage, texts
from pipeline.results.collect import Cell
from pipeline.results.tables import Table
from pipeline.study.setting import DatasetInfo


def tables(plan: Plan, cells: Sequence[Cell]) -> list[Table]:
    """A table for each two shards of one dataset and split that the plan has, in the order in which it has them."""
    pairs = [
        (old, new)
        for old, new in combinations([info for info in plan.datasets if info.version], 2)
        if (old.ref.name, old.split) == (new.ref.name, new.split)
    ]
    return [table for old, new in pairs if (table := _table(plan, cells, old, new)).rows]


def _table(plan: Plan, cells: Sequence[Cell], old: DatasetInfo, new: DatasetInfo) -> Table:
    rows, shown = leakage.side_by_side(cells, new.title, old.title)
    rows = [(*row[:2], row[3], row[2], row[4]) for row in rows]
    return Table(
        number=None,
        caption=f"{old.ref.name}: {old.version} and {new.version} side by side, test {leakage.metric_of(shown)}",
        labels=2,
        header=("setting", "column", old.version, new.version, f"{new.version} − {old.version}"),
        rows=rows,
        notes=(
            *_said(plan, old, new),
            "the same recipe on both; the difference: mean ± sample standard deviation over runs of the same seed "
            "(number of seeds)",
            *texts.absent_notes(list(shown.values())),
        ),
        cells={(row, 5 - column): cell for (row, column), cell in shown.items()},
    )


def _said(plan: Plan, *infos: DatasetInfo) -> list[str]:
    """How many images both train on, and whether their test images are the same."""
    size = next(spec.image_size for spec in plan.wanted if spec.dataset == infos[0].ref)
    try:
        both = [shards_of(Path(plan.cluster.shards), info.ref, size=size) for info in infos]
    except ValueError as error:
        return [str(error)]
    trained = " and ".join(f"{counts_of(shards.manifest)['train'].images:,}" for shards in both)
    return [f"training images: {trained}", _tested(*both)]


def _tested(old: Shards, new: Shards) -> str:
    if facts.part_hash(old, "test") == facts.part_hash(new, "test"):
        return f"both are tested on the same {counts_of(old.manifest)['test'].images:,} images with the same labels"
    return "THE TEST IMAGES DIFFER, so the difference is not one of training alone"
