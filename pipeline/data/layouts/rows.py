"""Read a row of a user's table as a record; a cell that makes no sense is the record's problem."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from pipeline.core.console import visible
from pipeline.data.labels import MISSING
from pipeline.data.layouts.columns import YES_NO, is_missing
from pipeline.data.layouts.options import Options
from pipeline.data.layouts.paths import Files
from pipeline.data.layouts.sources import Source
from pipeline.data.layouts.words import SPLITS
from pipeline.data.records import Record
from pipeline.data.tables import Row


class RowReader:
    """Reads the rows of a table.

    `missing` counts the cells of the label column that are no label: `nan`, `None`, `N/A` and the like.
    """

    def __init__(self, source: Source, files: Files, options: Options, missing: Counter[str], *, several: bool) -> None:
        self.columns = source.columns
        self.table = source.table
        self.split = source.split
        self.files = files
        self.options = options
        self.missing = missing
        self.prefix = f"{visible(source.table.path.name)}, " if several else ""
        texts = [row[self.columns.path] for _, row in self.table.rows]
        self.anywhere = not any(text and files.has(text) for text in texts)
        """Whether files are looked for in all folders: where no row names one as it is."""

    def read(self, row: Row) -> tuple[Record, str | None]:
        """The record of a row, and what is wrong with its path; a row without a path has the path of the table."""
        number, cells = row
        path: Path = self.table.path
        lost: str | None = f"{self.prefix}line {number}: it has no path"
        if cells[self.columns.path]:
            path, lost = self.files.find(cells[self.columns.path], self.table.encoding, anywhere=self.anywhere)
        return self.read_facts(row, path), lost

    def read_facts(self, row: Row, path: Path) -> Record:
        """The record of a row whose file is `path`."""
        number, cells = row
        where = f"{self.prefix}line {number}"
        split, problem = self._split(cells, where)
        labels, wrong = self._labels(cells, where)
        group = cells[self.columns.group] if self.columns.group else ""
        return Record(
            key=None,
            path=path,
            labels=labels,
            group=None if is_missing(group) else group,
            split=split,
            problem=wrong or problem,
        )

    def _split(self, cells: dict[str, str], where: str) -> tuple[str | None, str | None]:
        """The split of a row and what is wrong with it."""
        cell = cells[self.columns.split] if self.columns.split else ""
        if is_missing(cell):
            return self.split, None
        split = SPLITS.get(cell.lower())
        if split is None:
            return self.split, f"{where}: split {cell!r} is none of train, val, test"
        if self.split not in (None, split):
            return split, f"{where}: split {cell!r} in a table whose name says {self.split}"
        return split, None

    def _labels(self, cells: dict[str, str], where: str) -> tuple[tuple[str, ...] | None, str | None]:
        """The labels of a row, as they are spelled, and what is wrong with them."""
        if self.columns.label:
            return self._label(cells[self.columns.label], where)
        marks = self.columns.marks
        if all(is_missing(cells[name]) for name in marks):
            return None, None
        if bad := [name for name in marks if cells[name].lower() not in YES_NO]:
            return None, f"{where}: {bad[0]} is {cells[bad[0]]!r}, neither 0 nor 1"
        return tuple(name for name in marks if YES_NO[cells[name].lower()]), None

    def _label(self, cell: str, where: str) -> tuple[tuple[str, ...] | None, str | None]:
        if cell in MISSING and not self.options.keep_na:
            self.missing[cell] += 1
            return None, None
        labels = tuple(part.strip() for part in cell.split("|") if part.strip()) or None
        if "\n" in cell or "\r" in cell:
            return labels, f"{where}: its label has a line break; is a quotation mark missing?"
        if labels and len(labels) > 1:
            return labels, f"{where}: {len(labels)} classes in one row: {', '.join(labels)}"
        return labels, None
