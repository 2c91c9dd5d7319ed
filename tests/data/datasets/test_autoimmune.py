"""The autoimmune biopsies in this project's own layout: one CSV file next to the TIFFs."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.data.datasets.autoimmune import DATASET
from pipeline.data.records import Listing

HEADER = "image,patient,TFH-1,TFH-217,TFH-Like,B cells,others"


def table(root: Path, *rows: str, header: str = HEADER) -> Listing:
    for row in rows:
        (root / row.partition(",")[0]).write_bytes(b"an image")
    (root / "images.csv").write_text("\n".join([header, *rows]) + "\n")
    return DATASET.listing(root)


def test_an_image_has_all_the_classes_it_shows_and_its_patient_as_group(tmp_path: Path) -> None:
    listing = table(tmp_path, "1.tif,P1,1,0,0,1,0", "2.tif,P1,0,0,0,0,0", "3.tif,P2,,,,,")
    assert (listing.classes, listing.task) == (DATASET.classes, "multi-label")
    assert [(record.labels, record.group, record.key) for record in listing.records] == [
        (("TFH-1", "B cells"), "P1", None),  # no id is published, and a file name could be a patient's
        ((), "P1", None),
        (None, "P2", None),
    ]


def test_one_class_in_every_row_is_still_multi_label(tmp_path: Path) -> None:
    assert table(tmp_path, "1.tif,P1,1,0,0,0,0", "2.tif,P2,0,1,0,0,0").task == "multi-label"


def test_columns_may_be_spelt_differently_and_be_in_any_order(tmp_path: Path) -> None:
    listing = table(tmp_path, "1.tif,1,0,0,1,1,P1", header="path,Others,b_cells,tfh_like,TFH 217,tfh1,patient_id")
    assert [(record.labels, record.group) for record in listing.records] == [(("TFH-1", "TFH-217", "others"), "P1")]


def test_a_missing_or_surplus_class_column_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"must have the class columns TFH-1, .*; it has TFH-1, TFH-217, TFH-Like, age"
    ):
        table(tmp_path, "1.tif,P1,1,0,0,0,0", header=HEADER.replace("B cells", "age"))


def test_a_folder_without_its_csv_says_what_it_must_hold(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="must hold one CSV with the columns image, patient, TFH-1, .* It is private"):
        DATASET.listing(tmp_path)
