"""Autoimmune biopsies, 198 TIFFs of 7 patients, five classes, several a picture (paper E.1.1).

Its facts are here; reading it is not built yet.
"""

from __future__ import annotations

from pathlib import Path

from pipeline.datasets.base import Dataset, Listing


class Autoimmune(Dataset):
    name = "autoimmune"
    classes = ("TFH-1", "TFH-217", "TFH-Like", "B cells", "others")  # E.1.1
    task = "multi-label"
    metric = "f1_micro"  # E.1.1: F1; micro at 0.5 in the notebook
    label_fractions = (0.1, 1.0)  # Table 3: no 1 %
    built = False
    obtain = "It is private (Van Buren et al., 2022); ask its authors."

    def listing(self, root: Path) -> Listing:
        raise ValueError(
            "reading autoimmune is not built yet; until then: shard it with --layout csv under another name"
        )


DATASET = Autoimmune()
