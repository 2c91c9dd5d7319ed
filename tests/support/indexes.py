"""Write indexes of the paper's four datasets without their images: enough to plan the main grid.

python tests/support/indexes.py SHARDS [ISIC_LABELS]

ISIC's rows are those of the published label file if the folder ISIC_LABELS exists (default:
../shared/data/isic2019_labels_full); the other datasets have the paper's classes and counts with random labels.
"""

from __future__ import annotations

import csv
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.core import files
from pipeline.data.datasets import DATASETS
from pipeline.data.shards.index import write_index
from pipeline.study import paper

COUNTS = {"autoimmune": 198, "dermofit": 1300, "brain_mri": 7023, "isic": 25331}  # E.1


def isic_labels(folder: Path) -> list[str]:
    with open(folder / "ISIC_2019_Training_GroundTruth.csv", newline="") as file:
        return [next(name for name, value in row.items() if value == "1.0") for row in csv.DictReader(file)]


def write(shards: Path, name: str, labels: list[str], *, size: int = paper.IMAGE_SIZE) -> Path:
    """Write a shard folder with index and manifest and without tars."""
    plugin = DATASETS.find(name).DATASET
    folder = shards / f"{name}-{size}-image-{'0' * 8}"
    folder.mkdir(parents=True)
    order = np.random.default_rng(0).permutation(len(labels))
    parts = ["train"] * round(len(labels) * 0.8) + ["val"] * round(len(labels) * 0.1)
    parts += ["test"] * (len(labels) - len(parts))
    rows: list[dict[str, Any]] = [
        {
            "key": f"{name}-{row:06d}",
            "split": part,
            "labels": [labels[row]],
            "group": None,
            "tar": f"{part}-000000.tar",
            "offset": 512 + 40_000 * position,
            "size": 30_000,
            "sha256": files.sha256_bytes(b"%d" % row),
            "width": 600,
            "height": 450,
        }
        for position, (row, part) in enumerate(zip(order.tolist(), parts, strict=True))
    ]
    write_index(folder / "index.parquet", rows)
    counts = {
        part: {
            "pictures": parts.count(part),
            "unlabelled": 0,
            **Counter(row["labels"][0] for row in rows if row["split"] == part),
        }
        for part in ("train", "val", "test")
    }
    manifest = {
        "name": name,
        "fingerprint": files.sha256_file(folder / "index.parquet")[:16],
        "task": plugin.task,
        "classes": list(plugin.classes),
        "metric": plugin.metric,
        "label_fractions": list(plugin.label_fractions),
        "settings": {"size": size, "split": "image"},
        "counts": counts,
    }
    files.write_json(folder / "manifest.json", manifest)
    return folder


def write_all(shards: Path, labels: Path) -> None:
    for name, count in COUNTS.items():
        classes = DATASETS.find(name).DATASET.classes
        drawn = [classes[i] for i in np.random.default_rng(1).integers(len(classes), size=count)]
        write(shards, name, isic_labels(labels) if name == "isic" and labels.is_dir() else drawn)


if __name__ == "__main__":
    here = Path(__file__).parents[3] / "shared" / "data" / "isic2019_labels_full"
    write_all(Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else here)
