"""Damaged CSV files: each row becomes a record or the file is refused in one line that names it.

tests/support/odd_folders.py tries odd tables together with odd folders; here a good table is damaged, many times.
"""

from __future__ import annotations

import random
import tracemalloc
from pathlib import Path

import mutations
import pytest

from pipeline.data.datasets import DATASETS
from pipeline.data.layouts import UserDataset
from pipeline.data.records import Dataset, Listing

ROWS = 24
CLASSES = ("MEL", "NV", "BCC", "AK", "BKL", "DF", "VASC", "SCC")
ENCODINGS = ["utf-8", "utf-8", "utf-8", "utf-8-sig", "utf-16"]


def narrow(delimiter: str) -> str:
    rows = [["image", "label", "patient", "split"]]
    rows += [
        [f"{n}.png", "mélanome" if n % 2 else "nævus", f"P{n // 3}", ("train", "val", "")[n % 3]] for n in range(ROWS)
    ]
    return "\r\n".join(delimiter.join(row) for row in rows)


def wide(columns: tuple[str, ...], name: str) -> str:
    rows = [",".join(["image", *columns])]
    for n in range(ROWS):
        rows.append(
            ",".join([name.format(n), *("1.0" if n % len(columns) == m else "0.0" for m in range(len(columns)))])
        )
    return "\n".join(rows) + "\n"


def images(folder: Path, name: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for n in range(ROWS):
        (folder / name.format(n)).write_bytes(b"an image")


def case(kind: str, root: Path) -> tuple[Dataset, Path, list[bytes]]:
    """A dataset, its table, and what the table may hold before it is damaged."""
    if kind == "isic":
        images(root / "ISIC_2019_Training_Input", "ISIC_{:07d}.jpg")
        facts = "\n".join(["image,age_approx,lesion_id", *(f"ISIC_{n:07d},45,L{n // 2}" for n in range(ROWS))])
        (root / "ISIC_2019_Training_Metadata.csv").write_text(facts)
        table = root / "ISIC_2019_Training_GroundTruth.csv"
        return DATASETS.find("isic").DATASET, table, [wide((*CLASSES, "UNK"), "ISIC_{:07d}").encode()]
    images(root, "{}.png")
    dataset = UserDataset("mine", "csv")
    if kind == "marks":
        return dataset, root / "labels.csv", [wide(("a", "b", "c"), "{}.png").encode()]
    texts = [narrow(delimiter).encode(encoding) for delimiter in ",;\t" for encoding in ENCODINGS]
    return dataset, root / "labels.csv", texts


def accounted(listing: Listing, table: Path) -> Listing:
    """The listing, if every image is in it."""
    records = {record.path.name for record in listing.records}
    passed = {passed.path.name for passed in listing.passed_over}
    files = {path.name for path in table.parent.rglob("*") if path.suffix in (".png", ".jpg")}
    assert files <= records | passed
    good = [record for record in listing.records if record.problem is None]
    assert all(set(record.labels or ()) <= set(listing.classes) for record in good)
    return listing


@pytest.mark.parametrize("kind", ["label", "marks", "isic"])
def test_a_damaged_table_is_read_or_named(kind: str, tmp_path: Path) -> None:
    dataset, table, texts = case(kind, tmp_path)
    rng, read, refused = random.Random(mutations.SEED), 0, 0
    tracemalloc.start()
    for _ in range(mutations.count(300)):
        table.write_bytes(mutations.damaged_text(rng.choice(texts), rng))
        listing = mutations.read_or_refused(lambda: accounted(dataset.listing(tmp_path), table), str(tmp_path))
        read, refused = read + (listing is not None), refused + (listing is None)
    assert tracemalloc.get_traced_memory()[1] < 100e6  # bytes
    tracemalloc.stop()
    assert read > 10 and refused > 10
