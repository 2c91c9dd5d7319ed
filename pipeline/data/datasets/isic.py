"""ISIC-2019, skin lesions in eight classes (paper E.1.1): `python -m pipeline.shard isic --raw DIR`.

25,331 dermoscopic JPEGs of 600 × 450 to 1024 × 1024; balanced multi-class accuracy (Table 6: CASS ViT-B/16 0.5819).
"""

from __future__ import annotations

from pathlib import Path

from pipeline.core.console import visible
from pipeline.data.folders import outside, walk
from pipeline.data.labels import listed
from pipeline.data.records import Dataset, Listing, Published, Record, Source, mark_duplicates
from pipeline.data.tables import read_table

NO_CLASSES = ("UNK", "score_weight", "validation_weight")  # further columns that ISIC publishes
BUCKET = "https://isic-challenge-data.s3.amazonaws.com/2019"  # linked at challenge.isic-archive.com/data


class Isic(Dataset):
    name = "isic"
    classes = ("MEL", "NV", "BCC", "AK", "BKL", "DF", "VASC", "SCC")  # E.1.1
    task = "multi-class"
    metric = "balanced_accuracy"  # E.1.1: balanced multi-class accuracy
    label_fractions = (0.01, 0.1, 1.0)  # Table 6
    obtain = (
        "It is public: ISIC Challenge 2019, training data, ground truth and metadata at "
        "challenge.isic-archive.com/data (CC BY-NC 4.0): python -m pipeline.download isic --out DIR."
    )
    published = Published(
        source="ISIC 2019's ground-truth and metadata files; sizes: paper E.1.1",
        counts={
            "all": {
                "MEL": 4522,
                "NV": 12875,
                "BCC": 3323,
                "AK": 867,
                "BKL": 2624,
                "DF": 239,
                "VASC": 253,
                "SCC": 628,
            }
        },
        smallest=(450, 600),  # E.1.1: 600 × 450 (HAM10000) and 1024 × 1024 (BCN_20000); MSK's are between
        largest=(1024, 1024),
        modes=("RGB",),
        ids=r"ISIC_\d{7}(_downsampled)?",
        groups=11847,
    )
    sources = (  # no checksum of them is published
        Source(address=f"{BUCKET}/ISIC_2019_Training_GroundTruth.csv", target="ISIC_2019_Training_GroundTruth.csv"),
        Source(address=f"{BUCKET}/ISIC_2019_Training_Metadata.csv", target="ISIC_2019_Training_Metadata.csv"),
        Source(address=f"{BUCKET}/ISIC_2019_Training_Input.zip", target="ISIC_2019_Training_Input"),
    )

    def listing(self, root: Path) -> Listing:
        truth = self.require(root / "ISIC_2019_Training_GroundTruth.csv")
        images = self.require(root / "ISIC_2019_Training_Input")
        metadata = self.require(root / "ISIC_2019_Training_Metadata.csv")
        rows = _rows(truth, ("image", *self.classes))
        known = {"image", *self.classes, *NO_CLASSES}
        unread = [name for name in (rows[0] if rows else ()) if name not in known]
        lesion = {row["image"]: row["lesion_id"] or None for row in _rows(metadata, ("image", "lesion_id"))}
        records = []
        paths: dict[str, Path] = {}
        found = walk(images)
        for path in found.images:
            if paths.setdefault(path.stem, path) != path:  # two files with one id
                records.append(Record(key=path.stem, path=path, labels=None, group=lesion.get(path.stem)))
        for row in rows:
            key = row["image"]
            labels = tuple(name for name in self.classes if row[name] in ("1.0", "1"))
            problem = f"{len(labels)} classes in one row: {', '.join(labels)}" if len(labels) > 1 else None
            if invalid := [name for name in self.classes if row[name] not in ("1.0", "1", "0.0", "0", "")]:
                problem = f"{invalid[0]} is {row[invalid[0]]!r}, neither 0.0 nor 1.0"
            records.append(
                Record(
                    key=key,
                    path=paths.get(key, images / f"{key}.jpg"),
                    labels=labels or None,  # UNK, or no class at all: not labelled
                    group=lesion.get(key),
                    problem=problem,
                )
            )
        with_row = {row["image"] for row in rows}
        for key, path in paths.items():
            if key not in with_row:
                records.append(Record(key=key, path=path, labels=None, group=lesion.get(key)))
        return Listing(
            classes=self.classes,
            task=self.task,
            records=mark_duplicates(records) + found.unreadable,
            passed_over=(*found.passed_over, *outside(root, (truth.name, images.name, metadata.name))),
            notes=(f"columns of {truth.name} that are not read: {listed(map(visible, unread))}",) if unread else (),
        )


def _rows(table: Path, columns: tuple[str, ...]) -> list[dict[str, str]]:
    """The rows of a CSV file; raises `ValueError` if it lacks one of `columns`."""
    read = read_table(table, is_header=set(columns).issubset)
    if missing := [name for name in columns if name not in read.header]:
        raise ValueError(f"{table} has no column {missing[0]!r}; it has {', '.join(read.header)}")
    return [cells for _, cells in read.rows]


DATASET = Isic()
