"""The words of folders, files and cells that say a split, or that an image has no label."""

from __future__ import annotations

import re

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


def split_in_name(name: str) -> str | None:
    """The one split that the words of a file's name say: `train_labels.csv`; None for none or several."""
    said = {SPLITS[word] for word in re.findall("[a-z]+", name.lower()) if word in SPLITS}
    return said.pop() if len(said) == 1 else None
