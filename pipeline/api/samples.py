"""The images of a split of shards with their labels as numbers, for whatever reads them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.data.shards.index import Shards, shards_named
from pipeline.data.shards.remote import copy_small_files
from pipeline.runs.cluster import load_cluster

SPLITS = ("train", "val", "test")
NO_LABEL = -1


@dataclass(frozen=True)
class Samples:
    """The images of one split of shards, and what their labels are as numbers."""

    shards: Shards
    rows: list[int]
    targets: np.ndarray
    """int64 [n], `NO_LABEL` without a label; where an image may have several classes float32 [n, classes], NaN."""
    single: bool
    """Whether each image has one class."""


def choose(name: str | Path, split: str, image_size: int | None, unlabelled: bool, cluster: str | Path) -> Samples:
    """The images of a split; raises `ValueError` as `torch_dataset`."""
    if split not in SPLITS:
        raise ValueError(f"split is {split!r}; known: {', '.join(SPLITS)}")
    site = load_cluster(str(cluster))
    copy_small_files(site.shards_from, Path(site.shards))
    shards = shards_named(Path(site.shards), str(name), image_size)
    rows = shards.of_split(split)
    labels = shards.labels(rows)
    if not unlabelled:
        labelled = [(row, names) for row, names in zip(rows, labels, strict=True) if names is not None]
        rows, labels = [row for row, _ in labelled], [names for _, names in labelled]
    single = shards.manifest.get("task", "multi-class") == "multi-class"
    number = {label: i for i, label in enumerate(shards.classes)}
    targets: np.ndarray
    if single:
        targets = np.array([NO_LABEL if names is None else number[names[0]] for names in labels], np.int64)
    else:
        targets = np.full((len(rows), len(number)), np.nan, np.float32)
        for i, names in enumerate(labels):
            if names is not None:
                targets[i] = [label in names for label in shards.classes]
    return Samples(shards, rows, targets, single)
