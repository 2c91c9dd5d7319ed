"""Anyone's own images: `python -m pipeline.shard my_lesions --layout folder --raw DIR` (or `--layout csv`).

folder  one folder a class; images directly in DIR or in DIR/unlabelled have no label. Where DIR holds
        train, val or test folders, those are the split and the classes lie inside them.
csv     one CSV file in DIR: a path column (image, path, file or filename), then either one `label` column or one
        column of 0 and 1 a class; optional `group` (or patient, lesion) and `split` columns. Empty labels: none.
"""

from __future__ import annotations

from pathlib import Path

from pipeline.data.records import Dataset, Listing, Record, images_under, read_csv, without_duplicates

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


class Folder(Dataset):
    """Images under a name of the user's, in one of `LAYOUTS`."""

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
        self.need(root)
        found = _folders(root) if self.layout == "folder" else _csv(root)
        if not found.records:
            raise ValueError(f"{self.name}: no images under {root}; {self.obtain}")
        labelled = [record for record in found.records if record.labels and not record.problem]
        if labelled and len(found.classes) < 2:
            raise ValueError(
                f"{self.name}: only one class, {found.classes[0]!r}, under {root}; give each class a folder or column"
            )
        return found


def _folders(root: Path) -> Listing:
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


def _csv(root: Path) -> Listing:
    tables = sorted(root.glob("*.csv"))
    if len(tables) != 1:
        names = ", ".join(path.name for path in tables) or "none"
        raise ValueError(f"--layout csv wants exactly one CSV file in {root}; found: {names}")
    header, rows = read_csv(tables[0])

    def column(names: tuple[str, ...]) -> str | None:
        return next((name for name in header if name.lower() in names), None)

    path_column, label_column = column(PATH_COLUMNS), column(LABEL_COLUMNS)
    group_column, split_column = column(GROUP_COLUMNS), column(("split",))
    if path_column is None:
        raise ValueError(f"{tables[0]} has no path column; name one of its columns {' or '.join(PATH_COLUMNS)}")
    special = {path_column, label_column, group_column, split_column}
    marks = [] if label_column else [name for name in header if name not in special]
    if not label_column and not marks:
        raise ValueError(f"{tables[0]} has no label column; add `label`, or one column of 0 and 1 a class")

    records = []
    for number, row in enumerate(rows, start=2):
        problem = None
        split = SPLITS.get(row[split_column].lower()) if split_column else None
        if split_column and row[split_column] and split is None:
            problem = f"line {number}: split {row[split_column]!r} is none of train, val, test"
        labels: tuple[str, ...] | None
        if label_column:
            labels = tuple(part.strip() for part in row[label_column].split("|") if part.strip()) or None
            if labels and len(labels) > 1:
                problem = f"line {number}: {len(labels)} classes in one row: {', '.join(labels)}"
        elif all(row[name] == "" for name in marks):
            labels = None
        elif bad := [name for name in marks if row[name].lower() not in YES_NO]:
            labels, problem = None, f"line {number}: {bad[0]} is {row[bad[0]]!r}, neither 0 nor 1"
        else:
            labels = tuple(name for name in marks if YES_NO[row[name].lower()])
        group = row[group_column] or None if group_column else None
        records.append(
            Record(
                key=None,
                path=root / row[path_column],
                labels=labels,
                group=group,
                split=split,
                problem=problem,
            )
        )
    listed = {record.path.resolve() for record in records}
    for path in images_under(root):
        if path.resolve() not in listed:
            records.append(Record(key=None, path=path, labels=None))
    good = [record.labels for record in records if record.labels is not None and not record.problem]
    several = not label_column and any(len(labels) != 1 for labels in good)
    classes = tuple(marks) if marks else tuple(sorted({labels[0] for labels in good}))
    return Listing(
        classes=classes,
        task="multi-label" if several else "multi-class",
        records=without_duplicates(records, name="path"),
    )
