"""A hospital's own files: every file below the raw folder, without labels or with those of a table.

The rows of the table name patients, studies, series or images by their ids, which the headers of DICOM hold.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from pipeline.core.console import counted, visible
from pipeline.data import folders
from pipeline.data.labels import listed
from pipeline.data.layouts.columns import find_columns
from pipeline.data.layouts.csv_layout import with_classes
from pipeline.data.layouts.groups import groups_from_paths
from pipeline.data.layouts.options import Options
from pipeline.data.layouts.paths import Files
from pipeline.data.layouts.rows import RowReader
from pipeline.data.layouts.sources import Source
from pipeline.data.records import ByHeader, Listing, Record, plain_name
from pipeline.data.tables import read_table

LEVELS = {
    "sop": ("sopinstanceuid", "sopuid", "sop", "instanceuid"),
    "series": ("seriesinstanceuid", "seriesuid", "series"),
    "study": ("studyinstanceuid", "studyuid", "study"),
    "patient": ("patientid", "patient"),
}
"""The names of the columns that say what a row is about, in small letters without signs; the finest counts."""
TWICE = "the table of labels has differing rows for its"


def dicom_listing(root: Path, options: Options) -> Listing:
    """The listing of `root`; raises `ValueError` for a table that does not say what its rows are about."""
    found = folders.walk(root, leave_out=options.leave_out, volumes=options.volumes)
    notes: list[str] = []
    records = [Record(key=None, path=path, labels=None) for path in found.images]
    if options.group_from is not None:
        records = groups_from_paths(records, root, options.group_from, notes, hides_names=True)
    classes: tuple[str, ...] = ()
    task, by_header = "multi-class", None
    if options.labels is not None:
        by_header, classes, task = _read_labels(options.labels, root, options, notes)
    return Listing(
        classes=classes,
        task=task,
        records=records + found.unreadable,
        passed_over=tuple(found.passed_over),
        notes=tuple(notes),
        by_header=by_header,
    )


def _read_labels(path: Path, root: Path, options: Options, notes: list[str]) -> tuple[ByHeader, tuple[str, ...], str]:
    """The labels of a table, its classes and the task."""
    table = read_table(path, is_header=lambda header: _level(header) is not None, encoding=options.encoding)
    known = _level(table.header)
    if known is None:
        raise ValueError(
            f"{path} has no column that says what a row is about; name one patient_id, study_instance_uid, "
            "series_instance_uid or sop_instance_uid (a table that names files goes with --layout csv; its columns: "
            f"{listed(map(visible, table.header)) or 'none'})"
        )
    level, column = known
    others = [name for name in table.header if name != column and _level([name]) is not None]
    chosen = replace(options, path_column=column, labels=None)
    table = replace(table, header=[name for name in table.header if name not in others])
    columns = find_columns(table, chosen)
    if options.group_column is None:
        columns = replace(columns, group=None)
    source = Source(table, columns, None)
    missing: Counter[str] = Counter()
    reader = RowReader(source, Files(root, [], []), chosen, missing, several=False)
    rows = [row for row in table.rows if row[1][column]]
    records, classes, task = with_classes(
        [(reader.read_facts(row, path), None) for row in rows], [source], chosen, notes, False
    )
    if len(classes) < 2:
        raise ValueError(f"{path} has only one class, {listed(map(repr, classes)) or 'none'}; it needs two or more")
    by_id: dict[str, Record] = {}
    for (_, cells), record in zip(rows, records, strict=True):
        before = by_id.setdefault(cells[column], record)
        if before != record:
            by_id[cells[column]] = replace(before, problem=f"{TWICE} {level}")
    notes.append(f"labels by {level}, of {counted(len(by_id), 'row')} of the table of labels")
    return ByHeader(level=level, rows=by_id), classes, task


def _level(header: Sequence[str]) -> tuple[str, str] | None:
    """The finest level that a column is about, with the column."""
    plain = {plain_name(name): name for name in header}
    for level, names in LEVELS.items():
        for name in names:
            if name in plain:
                return level, plain[name]
    return None
