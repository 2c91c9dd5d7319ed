"""Autoimmune biopsies, 198 TIFFs of 7 patients in five classes (paper E.1.1): `pipeline.shard autoimmune --raw DIR`.

The dataset is private and its layout is not published, so the layout is ours: one CSV file next to the images with a
path column (`image`), one column of 0 and 1 a class and a `patient` column, read as `--layout csv` reads it. An image
can show several classes or none. F1 (Table 3: CASS ViT-B/16 0.8894).
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from pipeline.data.layouts import UserDataset
from pipeline.data.records import Dataset, Listing, Published, plain_name


class Autoimmune(Dataset):
    name = "autoimmune"
    classes = ("TFH-1", "TFH-217", "TFH-Like", "B cells", "others")  # E.1.1
    task = "multi-label"
    metric = "f1_micro"  # E.1.1: F1; micro at 0.5 in the notebook
    label_fractions = (0.1, 1.0)  # Table 3: no 1 %
    obtain = "It is private (Van Buren et al., 2022); ask its authors."
    published = Published(
        source="paper E.1.1; counts by class are not published",
        counts={},
        images=198,
        groups=7,
        smallest=(352, 469),
        largest=(352, 469),
        modes=("RGB",),
    )

    def listing(self, root: Path) -> Listing:
        tables = [path for path in self.require(root).iterdir() if path.suffix == ".csv" and path.name[0] != "."]
        if len(tables) != 1:
            raise ValueError(
                f"{self.name}: {root} must hold one CSV with the columns image, patient, {', '.join(self.classes)} "
                f"next to the images. {self.obtain}"
            )
        table = UserDataset(self.name, "csv", any_marks=True).listing(root)
        class_of = {plain_name(name): name for name in self.classes}
        if {plain_name(name) for name in table.classes} != set(class_of):
            raise ValueError(
                f"{self.name}: apart from image, patient and split, the CSV in {root} must have the class columns "
                f"{', '.join(self.classes)} and no others; it has {', '.join(table.classes)}"
            )
        records = []
        for record in table.records:
            marked = {class_of[plain_name(name)] for name in record.labels or ()}
            labels = None if record.labels is None else tuple(name for name in self.classes if name in marked)
            records.append(replace(record, labels=labels))
        return replace(table, classes=self.classes, task=self.task, records=records)


DATASET = Autoimmune()
