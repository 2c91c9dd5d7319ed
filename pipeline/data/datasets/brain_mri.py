"""Brain-tumour MRI in four classes (paper E.1.1): `python -m pipeline.shard brain_mri --raw DIR`.

The paper counts 5,712 training and 1,310 test images. The curator's split stays as delivered, with the checkpoint copy
of a notebook in Testing; validation is carved from training (fidelity 3b, 37).
F1 (Table 5: CASS ResNet-50 0.9909).
"""

from __future__ import annotations

from pathlib import Path

from pipeline.data.folders import outside, walk
from pipeline.data.records import Dataset, Listing, PassedOver, Published, Record, mark_duplicates

FOLDERS = {"train": "Training", "test": "Testing"}
# The curator's counts: 5,712 and 1,311; the paper counts 1,310 test images (E.1.1, fidelity 37).
COUNTS = {
    "train": {"glioma": 1321, "meningioma": 1339, "notumor": 1595, "pituitary": 1457},
    "test": {"glioma": 300, "meningioma": 306, "notumor": 405, "pituitary": 300},
}


def key_of(split: str, label: str, number: int) -> str:
    """The curator's name for an image: `Tr-glTr_0003` in the first ten of a folder, `Tr-gl_0010` from then on."""
    return f"{split[:2].capitalize()}-{label[:2]}{'Tr' if number < 10 else ''}_{number:04d}"


class BrainMri(Dataset):
    name = "brain_mri"
    classes = ("glioma", "meningioma", "notumor", "pituitary")  # E.1.1
    task = "multi-class"
    metric = "f1_micro"  # E.1.1: F1; micro at 0.5 in the notebook
    label_fractions = (0.01, 0.1, 1.0)  # Table 5
    obtain = "It is public: kaggle.com/datasets/masoudnickparvar/brain-tumor-mri-dataset (CC0)."
    published = Published(
        source="its curator's page on Kaggle; sizes: paper E.1.1",
        counts=COUNTS,
        smallest=(219, 234),
        largest=(512, 512),
        modes=("L", "RGB"),  # greyscale (E.1.1); delivered in either mode
        ids=frozenset(
            key_of(split, label, number)
            for split, classes in COUNTS.items()
            for label, count in classes.items()
            for number in range(count)
        ),
    )

    def listing(self, root: Path) -> Listing:
        records: list[Record] = []
        unreadable: list[Record] = []
        passed_over: list[PassedOver] = []
        for split, folder in FOLDERS.items():
            for label in self.classes:
                found = walk(self.require(root / folder / label), hidden=True)
                unreadable += found.unreadable
                passed_over += found.passed_over
                for path in found.images:
                    key = path.stem.replace(".", "_")
                    records.append(Record(key=key, path=path, labels=(label,), split=split))
            passed_over += outside(root / folder, self.classes)
        passed_over += outside(root, FOLDERS.values())
        return Listing(
            classes=self.classes,
            task=self.task,
            records=mark_duplicates(records) + unreadable,
            passed_over=tuple(passed_over),
        )


DATASET = BrainMri()
