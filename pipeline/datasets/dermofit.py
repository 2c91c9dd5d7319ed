"""Dermofit, 1,300 skin lesions in ten classes (paper E.1.1). Its facts are here; reading it is not built yet."""

from __future__ import annotations

from pathlib import Path

from pipeline.datasets.base import Dataset, Listing


class Dermofit(Dataset):
    name = "dermofit"
    classes = ("AK", "BCC", "ML", "SCC", "SK", "IEC", "PYO", "VASC", "DF", "MEL")  # E.1.1
    task = "multi-class"
    metric = "f1_micro"  # E.1.1: F1; micro at 0.5 in the notebook
    label_fractions = (0.1, 1.0)  # Table 4: no 1 %
    built = False
    obtain = "It is sold under licence by the University of Edinburgh (Dermofit Image Library)."

    def listing(self, root: Path) -> Listing:
        raise ValueError("reading dermofit is not built yet; until then: shard it with --layout csv under another name")


DATASET = Dermofit()
