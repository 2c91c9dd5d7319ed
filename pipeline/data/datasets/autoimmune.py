"""Autoimmune biopsies, 198 TIFFs of 7 patients in five classes (paper E.1.1): `pipeline.shard autoimmune --raw DIR`.

The dataset is private and nobody published how its files lie, so the layout is ours: one CSV beside the images with a
path column (`image`), one column of 0 and 1 a class and a `patient` column, read as `--layout csv` reads it. An image
can show several classes or none. F1 (Table 3: CASS ViT-B/16 0.8894).
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from pipeline.data.layouts import Folder
from pipeline.data.records import Dataset, Listing, Published


def _plain(name: str) -> str:
    return re.sub("[^a-z0-9]", "", name.lower())


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
        if len(list(self.need(root).glob("*.csv"))) != 1:
            raise ValueError(
                f"{self.name}: {root} must hold one CSV with the columns image, patient, {', '.join(self.classes)} "
                f"beside the images. {self.obtain}"
            )
        found = Folder(self.name, "csv").listing(root)
        class_of = {_plain(name): name for name in self.classes}
        if {_plain(name) for name in found.classes} != set(class_of):
            raise ValueError(
                f"{self.name}: the CSV in {root} must have the class columns "
                f"{', '.join(self.classes)} and no other but "
                f"image, patient and split; it has {', '.join(found.classes)}"
            )
        records = []
        for record in found.records:
            marked = {class_of[_plain(name)] for name in record.labels or ()}
            labels = None if record.labels is None else tuple(name for name in self.classes if name in marked)
            records.append(replace(record, labels=labels))
        return Listing(classes=self.classes, task=self.task, records=records)


DATASET = Autoimmune()
