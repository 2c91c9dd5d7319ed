"""The user's own images: `python -m pipeline.shard my_lesions --layout folder --raw DIR` (or `--layout csv`).

folder  one folder a class; images directly in DIR or in DIR/unlabelled have no label. If DIR holds train, val or
        test folders, these are the split and the class folders are inside them.
csv     one CSV file in DIR: a path column (image, path, file or filename), then either one `label` column or one
        column of 0 and 1 a class; optional `group` (or patient, lesion) and `split` columns. Empty labels: none.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pipeline.data.records import Dataset, Listing, Record, images_under, mark_duplicates, read_csv

LAYOUTS = ("folder", "csv")
PATH_COLUMNS = ("image", "path", "file", "filename", "image_path")
LABEL_COLUMNS = ("label", "class", "diagnosis", "target")
GROUP_COLUMNS = ("group", "patient", "patient_id", "lesion", "lesion_id", "subject")
SPLITS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}
UNLABELLED = ("unlabelled", "unlabeled")
YES_NO = {
    "1": True,
    "1.0": True,
    "true": True,
    "yes": True,
    "0": False,
    "0.0": False,
    "false": False,
    "no": False,
}


class UserDataset(Dataset):
    """The user's own images under a name that the user gives, in one of `LAYOUTS`."""

    classes = ()
    task = ""
    metric = "balanced_accuracy"  # ASSUMED: fair to rare classes; every metric is stored
    label_fractions = (0.01, 0.1, 1.0)  # the paper's fractions
    obtain = "See docs/datasets.md for the two layouts."

    def __init__(self, name: str, layout: str) -> None:
        if layout not in LAYOUTS:
            raise ValueError(f"--layout is {layout!r}; known: {', '.join(LAYOUTS)}")
        self.name = name
        self.layout = layout

    def listing(self, root: Path) -> Listing:
        self.require(root)
        listing = _folder_listing(root) if self.layout == "folder" else _csv_listing(root)
        if not listing.records:
            raise ValueError(f"{self.name}: no images under {root}; {self.obtain}")
        labelled = [record for record in listing.records if record.labels and not record.problem]
        if labelled and len(listing.classes) < 2:
            raise ValueError(
                f"{self.name}: only one class, {listing.classes[0]!r}, under {root}; give each class a folder or column"
            )
        return listing


def _folder_listing(root: Path) -> Listing:
    records = []
    for path in images_under(root):
        parts = list(path.relative_to(root).parts[:-1])
        split = SPLITS.get(parts[0].lower()) if parts else None
        if split:
            parts = parts[1:]
        label = parts[0] if parts and parts[0].lower() not in UNLABELLED else None
        records.append(Record(key=None, path=path, labels=(label,) if label else None, split=split))
    classes = sorted({record.labels[0] for record in records if record.labels})
    return Listing(classes=tuple(classes), task="multi-class", records=records)


@dataclass(frozen=True)
class _Columns:
    """Which column of a user's CSV file holds what; None where there is no such column."""

    path: str
    label: str | None
    group: str | None
    split: str | None
    marks: list[str]
    """The columns of 0 and 1, one a class; none where there is a label column."""


def _csv_listing(root: Path) -> Listing:
    tables = sorted(root.glob("*.csv"))
    if len(tables) != 1:
        names = ", ".join(path.name for path in tables) or "none"
        raise ValueError(f"--layout csv needs exactly one CSV file in {root}; found: {names}")
    header, rows = read_csv(tables[0])
    columns = _find_columns(tables[0], header)
    records = [_csv_record(root, columns, number, row) for number, row in enumerate(rows, start=2)]
    listed = {record.path.resolve() for record in records}
    for path in images_under(root):
        if path.resolve() not in listed:
            records.append(Record(key=None, path=path, labels=None))
    good = [record.labels for record in records if record.labels is not None and not record.problem]
    several = columns.label is None and any(len(labels) != 1 for labels in good)
    classes = tuple(columns.marks) or tuple(sorted({labels[0] for labels in good}))
    return Listing(
        classes=classes,
        task="multi-label" if several else "multi-class",
        records=mark_duplicates(records, name="path"),
    )


def _find_columns(table: Path, header: list[str]) -> _Columns:
    def column(names: tuple[str, ...]) -> str | None:
        return next((name for name in header if name.lower() in names), None)

    path, label = column(PATH_COLUMNS), column(LABEL_COLUMNS)
    group, split = column(GROUP_COLUMNS), column(("split",))
    if path is None:
        raise ValueError(f"{table} has no path column; name one of its columns {' or '.join(PATH_COLUMNS)}")
    marks = [] if label else [name for name in header if name not in (path, label, group, split)]
    if not label and not marks:
        raise ValueError(f"{table} has no label column; add `label`, or one column of 0 and 1 a class")
    return _Columns(path, label, group, split, marks)


def _csv_record(root: Path, columns: _Columns, number: int, row: dict[str, str]) -> Record:
    """The record of the row in line `number`; a cell that makes no sense is the record's problem."""
    problem = None
    split = SPLITS.get(row[columns.split].lower()) if columns.split else None
    if columns.split and row[columns.split] and split is None:
        problem = f"line {number}: split {row[columns.split]!r} is none of train, val, test"
    labels: tuple[str, ...] | None
    if columns.label:
        labels = tuple(part.strip() for part in row[columns.label].split("|") if part.strip()) or None
        if labels and len(labels) > 1:
            problem = f"line {number}: {len(labels)} classes in one row: {', '.join(labels)}"
    elif all(row[name] == "" for name in columns.marks):
        labels = None
    elif bad := [name for name in columns.marks if row[name].lower() not in YES_NO]:
        labels, problem = None, f"line {number}: {bad[0]} is {row[bad[0]]!r}, neither 0 nor 1"
    else:
        labels = tuple(name for name in columns.marks if YES_NO[row[name].lower()])
    group = row[columns.group] or None if columns.group else None
    return Record(key=None, path=root / row[columns.path], labels=labels, group=group, split=split, problem=problem)
