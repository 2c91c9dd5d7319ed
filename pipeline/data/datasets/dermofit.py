"""Dermofit, 1,300 skin lesions in ten classes (paper E.1.1): `python -m pipeline.shard dermofit --raw DIR`.

There is one folder a class, named by its abbreviation or its full name. As delivered it holds one folder a lesion:
`A1/A1.png` next to its segmentation `A1/A1mask.png`, which is no sample. Images directly in the class folder are read
too. A final small letter distinguishes images of one lesion (`B12a`, `B12b`). F1 (Table 4: CASS ResNet-50 0.7132).
"""

from __future__ import annotations

import re
from pathlib import Path

from pipeline.data.folders import outside, walk
from pipeline.data.records import Dataset, Listing, PassedOver, Published, Record, mark_duplicates, plain_name

NAMES = {  # E.1.1, then other spellings in use
    "AK": ("actinic keratosis", "actinic keratoses"),
    "BCC": ("basal cell carcinoma",),
    "ML": ("melanocytic nevus", "melanocytic naevus", "melanocytic nevus mole", "mole", "nevus"),
    "SCC": ("squamous cell carcinoma",),
    "SK": ("seborrhoeic keratosis", "seborrheic keratosis"),
    "IEC": ("intraepithelial carcinoma",),
    "PYO": ("pyogenic granuloma",),
    "VASC": ("haemangioma", "hemangioma"),
    "DF": ("dermatofibroma",),
    "MEL": ("malignant melanoma", "melanoma"),
}


CLASS_OF = {plain_name(spelling): label for label, others in NAMES.items() for spelling in (label, *others)}


class Dermofit(Dataset):
    name = "dermofit"
    classes = tuple(NAMES)
    task = "multi-class"
    metric = "f1_micro"  # E.1.1: F1; micro at 0.5 in the notebook
    label_fractions = (0.1, 1.0)  # Table 4: no 1 %
    obtain = (
        "It is sold under licence by the University of Edinburgh: "
        "licensing.edinburgh-innovations.ed.ac.uk/product/dermofit-image-library."
    )
    published = Published(
        source="Dermofit Image Library (University of Edinburgh) and paper E.1.1",
        counts={
            "all": {
                "AK": 45,
                "BCC": 239,
                "ML": 331,
                "SCC": 88,
                "SK": 257,
                "IEC": 78,
                "PYO": 24,
                "VASC": 97,
                "DF": 65,
                "MEL": 76,
            }
        },
        smallest=(205, 205),
        largest=(1020, 1020),
        modes=("RGB",),
    )

    def listing(self, root: Path) -> Listing:
        folders = sorted(path for path in self.require(root).iterdir() if path.is_dir() and path.name[0] not in "._")
        missing = set(self.classes) - {CLASS_OF.get(plain_name(folder.name)) for folder in folders}
        if missing:
            wanted = "; ".join(f"{label} ({NAMES[label][0]})" for label in self.classes if label in missing)
            raise ValueError(
                f"{self.name}: {root} has no folder for {wanted}; it has "
                f"{', '.join(folder.name for folder in folders) or 'no folders'}. Give --raw the folder that holds one "
                f"folder a class. {self.obtain}"
            )
        records = []
        unreadable: list[Record] = []
        passed_over = outside(root, [folder.name for folder in folders if CLASS_OF.get(plain_name(folder.name))])
        for folder in folders:
            label = CLASS_OF.get(plain_name(folder.name))
            if label is None:
                continue
            found = walk(folder)
            unreadable += found.unreadable
            passed_over += found.passed_over
            for path in found.images:
                if path.stem.lower().endswith("mask"):
                    passed_over.append(PassedOver(path, "masks"))
                    continue
                lesion = path.stem if CLASS_OF.get(plain_name(path.parent.name)) else path.parent.name
                group = re.sub(r"(?<=\d)[a-z]$", "", lesion)
                records.append(Record(key=path.stem, path=path, labels=(label,), group=group))
        return Listing(
            classes=self.classes,
            task=self.task,
            records=mark_duplicates(records) + unreadable,
            passed_over=tuple(passed_over),
        )


DATASET = Dermofit()
