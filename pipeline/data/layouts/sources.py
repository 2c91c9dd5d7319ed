"""The tables of a raw folder: one CSV file, or one for each split, which their names say."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pipeline.core.console import counted, visible
from pipeline.data.folders import Found
from pipeline.data.layouts.columns import Columns, find_columns, has_paths
from pipeline.data.layouts.options import Options
from pipeline.data.layouts.words import split_in_name
from pipeline.data.tables import Table, read_table


@dataclass(frozen=True)
class Source:
    """A table with what its columns hold, and the split that its name says, where there are several."""

    table: Table
    columns: Columns
    split: str | None


def read_sources(
    root: Path, found: Found, options: Options, notes: list[str], *, any_marks: bool = False
) -> list[Source]:
    """Read the tables directly in `root`; raises `ValueError` where it is not clear which one, or what a column holds.

    Of several tables one may have no labels: the images of its rows have none.
    """
    paths = sorted(p.path for p in found.passed_over if p.path.parent == root and p.kind in (".csv", ".tsv"))
    splits = [split_in_name(path.stem) for path in paths] if len(paths) > 1 else [None]
    if not paths or (len(paths) > 1 and None in splits):
        names = ", ".join(visible(path.name) for path in paths) or "none"
        more = "; leave the others out: --leave-out NAME" if paths else ""
        raise ValueError(
            f"--layout csv needs exactly one CSV file in {root}, or one for each split (train.csv, test.csv), "
            f"found: {names}{more}"
        )
    tables = [read_table(path, is_header=partial(has_paths, options), encoding=options.encoding) for path in paths]
    columns = _read_columns(tables, options, any_marks)
    if len(paths) > 1:
        notes.append(f"the names of the tables say the split: {', '.join(visible(path.name) for path in paths)}")
    if nameless := sum(table.nameless for table in tables):
        notes.append(f"left out: {counted(nameless, 'column')} without a name")
    return [Source(*source) for source in zip(tables, columns, splits, strict=True)]


def _read_columns(tables: list[Table], options: Options, any_marks: bool) -> list[Columns]:
    """What the columns of each table hold; each class is a column of every table, or labels are in one column."""
    if len(tables) == 1:
        columns = [find_columns(tables[0], options, any_marks=any_marks)]
    else:
        columns = [find_columns(table, options, needed=False, marks=False) for table in tables]
        for given in ("label_column", "group_column", "split_column"):
            if getattr(options, given) and not any(getattr(each, given.partition("_")[0]) for each in columns):
                find_columns(tables[0], options)  # it says which columns there are
        if not any(each.label for each in columns):
            columns = [find_columns(table, options, needed=False) for table in tables]
    different = {tuple(each.marks): table.path for each, table in zip(columns, tables, strict=True) if each.marks}
    if len({frozenset(marks) for marks in different}) > 1:
        said = "; ".join(f"{path} has {', '.join(map(visible, marks))}" for marks, path in different.items())
        raise ValueError(
            f"the tables do not have the same classes: {said}; name their columns alike, or give --classes"
        )
    if not different and not any(each.label for each in columns):
        raise ValueError(
            f"{tables[0].path} has no label column; add `label`, or one column of 0 and 1 a class, or say which "
            "it is: --label-column"
        )
    return columns
