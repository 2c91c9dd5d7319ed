"""ISIC as delivered: the official files, their order and their defects."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.data.datasets.isic import DATASET
from pipeline.data.records import Listing, Record

CLASSES = ("MEL", "NV", "BCC", "AK", "BKL", "DF", "VASC", "SCC")


def row(image: str, *names: str) -> str:
    return ",".join([image, *("1.0" if name in names else "0.0" for name in (*CLASSES, "UNK"))])


def make(root: Path, rows: list[str], *, images: list[str], metadata: list[str]) -> Listing:
    (root / "ISIC_2019_Training_Input").mkdir(parents=True)
    for name in images:
        (root / "ISIC_2019_Training_Input" / name).write_bytes(b"an image")
    truth = [",".join(["image", *CLASSES, "UNK"]), *rows]
    (root / "ISIC_2019_Training_GroundTruth.csv").write_text("\n".join(truth) + "\n")
    facts = ["image,age_approx,anatom_site_general,lesion_id,sex", *metadata]
    (root / "ISIC_2019_Training_Metadata.csv").write_text("\n".join(facts) + "\n")
    return DATASET.listing(root)


def by_key(listing: Listing) -> dict[str | None, Record]:
    assert len({record.key for record in listing.records}) == len(listing.records)
    return {record.key: record for record in listing.records}


def test_rows_become_records_with_their_class_and_lesion(tmp_path: Path) -> None:
    listing = make(
        tmp_path,
        [row("ISIC_1", "MEL"), row("ISIC_2_downsampled", "SCC")],
        images=["ISIC_1.jpg", "ISIC_2_downsampled.jpg"],
        metadata=["ISIC_1,45,,HAM_7,male", "ISIC_2_downsampled,,,,"],
    )
    assert (listing.classes, listing.task) == (CLASSES, "multi-class")
    images = tmp_path / "ISIC_2019_Training_Input"
    assert listing.records == [
        Record(key="ISIC_1", path=images / "ISIC_1.jpg", labels=("MEL",), group="HAM_7"),
        Record(key="ISIC_2_downsampled", path=images / "ISIC_2_downsampled.jpg", labels=("SCC",), group=None),
    ]


def test_rows_of_unknown_or_no_class_are_images_without_labels(tmp_path: Path) -> None:
    listing = make(tmp_path, [row("ISIC_1", "UNK"), row("ISIC_2")], images=["ISIC_1.jpg", "ISIC_2.jpg"], metadata=[])
    assert [(record.labels, record.problem) for record in listing.records] == [(None, None)] * 2


def test_an_image_without_a_row_is_an_image_without_labels(tmp_path: Path) -> None:
    listing = make(
        tmp_path, [row("ISIC_1", "NV")], images=["ISIC_1.jpg", "ISIC_9.jpg"], metadata=["ISIC_9,45,,HAM_7,male"]
    )
    extra = by_key(listing)["ISIC_9"]
    assert (extra.labels, extra.group, extra.problem) == (None, "HAM_7", None)


def test_a_row_without_an_image_is_listed_for_the_quarantine(tmp_path: Path) -> None:
    listing = make(tmp_path, [row("ISIC_1", "NV"), row("ISIC_2", "MEL")], images=["ISIC_1.jpg"], metadata=[])
    missing = by_key(listing)["ISIC_2"]
    assert missing.path.name == "ISIC_2.jpg"
    assert not missing.path.exists()


def test_a_row_with_two_classes_has_a_problem(tmp_path: Path) -> None:
    listing = make(tmp_path, [row("ISIC_1", "MEL", "NV")], images=["ISIC_1.jpg"], metadata=[])
    assert listing.records[0].problem == "2 classes in one row: MEL, NV"


def test_a_value_that_is_neither_0_nor_1_has_a_problem(tmp_path: Path) -> None:
    rows = [row("ISIC_1", "NV").replace("0.0", "maybe", 1), row("ISIC_2", "NV").replace("1.0", "0.7")]
    listing = make(tmp_path, rows, images=["ISIC_1.jpg", "ISIC_2.jpg"], metadata=[])
    assert [record.problem for record in listing.records] == [
        "MEL is 'maybe', neither 0.0 nor 1.0",
        "NV is '0.7', neither 0.0 nor 1.0",
    ]


def test_a_repeated_row_counts_once(tmp_path: Path) -> None:
    listing = make(tmp_path, [row("ISIC_1", "NV"), row("ISIC_1", "NV")], images=["ISIC_1.jpg"], metadata=[])
    assert [record.problem for record in listing.records] == [None, "duplicate id ISIC_1: the same row again"]


def test_contradicting_rows_of_one_id_are_all_problems(tmp_path: Path) -> None:
    rows = [row("ISIC_1", "NV"), row("ISIC_1", "MEL"), row("ISIC_2", "MEL")]
    listing = make(tmp_path, rows, images=["ISIC_1.jpg", "ISIC_2.jpg"], metadata=[])
    assert [record.problem for record in listing.records] == ["duplicate id ISIC_1 with differing rows"] * 2 + [None]


def test_two_images_with_one_id_are_both_problems(tmp_path: Path) -> None:
    listing = make(tmp_path, [row("ISIC_1", "NV")], images=["ISIC_1.jpg", "ISIC_1.png"], metadata=[])
    assert sorted((record.path.name, record.problem) for record in listing.records) == [
        ("ISIC_1.jpg", "duplicate id ISIC_1 with differing rows"),
        ("ISIC_1.png", "duplicate id ISIC_1 with differing rows"),
    ]


@pytest.mark.parametrize(
    "name", ["ISIC_2019_Training_GroundTruth.csv", "ISIC_2019_Training_Input", "ISIC_2019_Training_Metadata.csv"]
)
def test_a_missing_part_is_named_with_its_origin(tmp_path: Path, name: str) -> None:
    make(tmp_path, [], images=[], metadata=[])
    (tmp_path / name).rename(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match=rf"isic: there is no .*{name}; give --raw .* challenge\.isic-archive\.com"):
        DATASET.listing(tmp_path)


@pytest.mark.parametrize(("name", "column"), [("GroundTruth", "BKL"), ("Metadata", "lesion_id")])
def test_a_missing_column_is_named(tmp_path: Path, name: str, column: str) -> None:
    make(tmp_path, [], images=[], metadata=[])
    table = tmp_path / f"ISIC_2019_Training_{name}.csv"
    table.write_text(table.read_text().replace(column, "other"))
    with pytest.raises(ValueError, match=f"{name}.csv has no column '{column}'; it has image, "):
        DATASET.listing(tmp_path)


def test_the_delivered_sample_lists_2994_images(shared: Path) -> None:
    records = DATASET.listing(shared / "isic2019").records
    assert len(records) == 2994
    assert all(record.path.is_file() and record.labels and not record.problem for record in records)


def test_columns_that_are_not_read_are_said(tmp_path: Path) -> None:
    root = tmp_path / "more"
    make(root, [row("ISIC_1", "NV")], images=["ISIC_1.jpg"], metadata=[])
    table = root / "ISIC_2019_Training_GroundTruth.csv"
    assert DATASET.listing(root).notes == ()
    first, *rest = table.read_text().splitlines()
    table.write_text("\n".join([f"{first},male,OTHER", *(f"{line},1,0" for line in rest)]))
    assert DATASET.listing(root).notes == (f"columns of {table.name} that are not read: male, OTHER",)
