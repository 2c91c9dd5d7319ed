"""What leakage is worth: the same technique on both splits of a dataset, where a grid has both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pipeline.jobs.plan import Plan
from pipeline.results import texts
from pipeline.results.collect import Cell
from pipeline.results.differences import difference
from pipeline.results.tables import Table
from pipeline.study.setting import SPLIT_MODES


def tables(plan: Plan, cells: Sequence[Cell]) -> list[Table]:
    """A table for each dataset of which the plan has both splits."""
    titles: dict[str, dict[str, str]] = {}
    for info in plan.datasets:
        if info.split:
            titles.setdefault(info.ref.name, {})[info.split] = info.title
    both = {name: [found[split] for split in SPLIT_MODES] for name, found in titles.items() if len(found) == 2}
    made = [_table(name, cells, *pair) for name, pair in both.items()]
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


def _table(name: str, cells: Sequence[Cell], by_image: str, grouped: str) -> Table:
    rows, shown = side_by_side(cells, by_image, grouped)
    return Table(
        number=None,
        caption=f"{name}: what leakage is worth, test {metric_of(shown)} on both splits",
        labels=2,
        header=("setting", "column", "split by image", "split grouped", "image − grouped"),
        rows=rows,
        notes=(
            "the same recipe on both; the difference: mean ± sample standard deviation over runs of the same seed "
            "(number of seeds)",
            "grouped: no twin of a test image is trained on, nor another image of its patient or lesion where they are "
            "known; where the curator fixed the test part, both splits are tested on the same images, and grouped "
            "trains on the images that are left (see the data section)",
            *texts.absent_notes(list(shown.values())),
        ),
        cells=shown,
    )
