"""What leakage is worth: the same technique on both splits of a dataset, where a grid has both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from pipeline.data.shards import facts
from pipeline.data.shards.index import shards_of
from pipeline.jobs.plan import Plan
from pipeline.results import texts
from pipeline.results.collect import Cell
from pipeline.results.differences import difference
from pipeline.results.tables import Table
from pipeline.study.setting import SPLIT_MODES, DatasetInfo


def tables(plan: Plan, cells: Sequence[Cell]) -> list[Table]:
    """A table for each dataset of which the plan has both splits."""
    infos: dict[str, dict[str, DatasetInfo]] = {}
    for info in plan.datasets:
        if info.split:
            infos.setdefault(info.ref.name, {})[info.split] = info
    both = {name: [found[split] for split in SPLIT_MODES] for name, found in infos.items() if len(found) == 2}
    made = [_table(plan, name, cells, *pair) for name, pair in both.items()]
    return [table for table in made if table.rows]


def side_by_side(
    cells: Sequence[Cell], one: str, two: str
) -> tuple[list[tuple[str, ...]], dict[tuple[int, int], Cell]]:
    """A row for each setting that two datasets (by their titles) have: both scores and the first minus the second.

    Also the cells that each row shows, by row and column.
    """
    others = {(c.experiment, c.row, c.column): c for c in cells if c.dataset == two}
    rows: list[tuple[str, ...]] = []
    shown: dict[tuple[int, int], Cell] = {}
    for cell in cells:
        other = others.get((cell.experiment, cell.row, cell.column))
        if cell.dataset != one or other is None:
            continue
        shown |= {(len(rows), 2): cell, (len(rows), 3): other}
        row = (" · ".join(cell.row), cell.column, texts.our_score(cell), texts.our_score(other))
        rows.append((*row, texts.difference(difference([(cell, other)]))))
    return rows, shown


def metric_of(shown: Mapping[tuple[int, int], Cell]) -> str:
    """The title of the metric of a table's cells."""
    return next((texts.METRIC_TITLES[cell.metric] for cell in shown.values()), "")


def _table(plan: Plan, name: str, cells: Sequence[Cell], by_image: DatasetInfo, grouped: DatasetInfo) -> Table:
    rows, shown = side_by_side(cells, by_image.title, grouped.title)
    return Table(
        number=None,
        caption=f"{name}: what leakage is worth, test {metric_of(shown)} on both splits",
        labels=2,
        header=("setting", "column", "split by image", "split grouped", "image − grouped"),
        rows=rows,
        notes=(
            "the same recipe on both; the difference: mean ± sample standard deviation over runs of the same seed "
            "(number of seeds)",
            *(_said(plan, info) for info in (by_image, grouped)),
            "where the curator fixed the test part, both splits are tested on the same images, and grouped trains on "
            "what is left (see the data section)",
            *texts.absent_notes(list(shown.values())),
        ),
        cells=shown,
    )


def _said(plan: Plan, info: DatasetInfo) -> str:
    """What is counted of test images whose patient, lesion or twin is trained on."""
    size = next((spec.image_size for spec in plan.wanted if spec.dataset == info.ref), 0)
    try:
        shared, twins, _ = facts.leaks(shards_of(Path(plan.cluster.shards), info.ref, size=size))
    except (ValueError, FileNotFoundError) as error:
        return f"split {info.split}: {error}"
    return f"split {info.split}: {shared}; {twins}"
