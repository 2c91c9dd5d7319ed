"""Brain-tumour MRI in four classes (paper E.1.1): `python -m pipeline.shard brain_mri --raw DIR`.

5,712 training and 1,310 test pictures by the paper's count; the curator's split is kept as delivered (a notebook's
checkpoint copy in Testing included), validation is carved from training (fidelity 3b, 37).
F1 (Table 5: CASS ResNet-50 0.9909).
"""

from __future__ import annotations

from pathlib import Path

from pipeline.datasets.base import Dataset, Listing, Record, pictures_under, without_duplicates


class BrainMri(Dataset):
    name = "brain_mri"
    classes = ("glioma", "meningioma", "notumor", "pituitary")  # E.1.1
    task = "multi-class"
    metric = "f1_micro"  # E.1.1: F1; micro at 0.5 in the notebook
    label_fractions = (0.01, 0.1, 1.0)  # Table 5
    obtain = "It is public: kaggle.com/datasets/masoudnickparvar/brain-tumor-mri-dataset (CC0)."

    def listing(self, root: Path) -> Listing:
        records = []
        for folder, split in (("Training", "train"), ("Testing", "test")):
            for label in self.classes:
                for path in pictures_under(self.need(root / folder / label), hidden=True):
                    key = path.stem.replace(".", "_")
                    records.append(Record(key=key, path=path, labels=(label,), split=split))
        return Listing(classes=self.classes, task=self.task, records=without_duplicates(records))


DATASET = BrainMri()
