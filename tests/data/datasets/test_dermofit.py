"""Dermofit as delivered and as users unpack it: a folder a class, a folder a lesion, masks next to the images."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.data.datasets.dermofit import DATASET, NAMES
from pipeline.data.records import Listing


def make(root: Path, *files: str, folders: dict[str, str] | None = None) -> Listing:
    """The listing of `files` under a folder for each class, some under another name than the abbreviation."""
    for label in DATASET.classes:
        (root / (folders or {}).get(label, label)).mkdir(parents=True, exist_ok=True)
    for name in files:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"an image")
    return DATASET.listing(root)


def facts(listing: Listing) -> set[tuple[str | None, tuple[str, ...] | None, str | None]]:
    assert not [record for record in listing.records if record.problem]
    return {(record.key, record.labels, record.group) for record in listing.records}


def test_a_lesions_folder_holds_an_image_and_a_mask_that_is_no_sample(tmp_path: Path) -> None:
    listing = make(
        tmp_path, "AK/A1/A1.png", "AK/A1/A1mask.png", "MEL/M7/M7.png", "MEL/M7/M7_Mask.PNG", "lesionlist.txt"
    )
    assert (listing.classes, listing.task) == (tuple(NAMES), "multi-class")
    assert facts(listing) == {("A1", ("AK",), "A1"), ("M7", ("MEL",), "M7")}


def test_images_of_one_lesion_share_their_group(tmp_path: Path) -> None:
    listing = make(tmp_path, "BCC/B12a/B12a.png", "BCC/B12b/B12b.png", "BCC/B13/one.png", "BCC/B13/two.png")
    assert facts(listing) == {
        ("B12a", ("BCC",), "B12"),
        ("B12b", ("BCC",), "B12"),
        ("one", ("BCC",), "B13"),
        ("two", ("BCC",), "B13"),
    }


def test_images_may_be_directly_in_the_class_folder(tmp_path: Path) -> None:
    listing = make(tmp_path, "SK/K1a.png", "SK/K1amask.png", "SK/K1b.png", "SK/SK/K2.png")
    assert facts(listing) == {("K1a", ("SK",), "K1"), ("K1b", ("SK",), "K1"), ("K2", ("SK",), "K2")}


@pytest.mark.parametrize(
    ("label", "folder"),
    [
        ("AK", "Actinic Keratosis"),
        ("ML", "Melanocytic Nevus / Mole".replace("/", "-")),
        ("SK", "seborrhoeic_keratosis"),
        ("SK", "Seborrheic Keratosis"),
        ("VASC", "haemangioma"),
        ("MEL", "Malignant_Melanoma"),
        ("DF", "df"),
    ],
)
def test_class_folders_may_have_their_full_names(label: str, folder: str, tmp_path: Path) -> None:
    listing = make(tmp_path, f"{folder}/X1/X1.png", folders={label: folder})
    assert facts(listing) == {("X1", (label,), "X1")}


def test_missing_classes_are_named_with_the_existing_folders_and_the_datasets_origin(tmp_path: Path) -> None:
    make(tmp_path, "__MACOSX/x.png")
    (tmp_path / "PYO").rename(tmp_path / "Pyogenes")
    (tmp_path / "DF").rmdir()
    with pytest.raises(ValueError) as caught:
        DATASET.listing(tmp_path)
    text = str(caught.value)
    assert "has no folder for PYO (pyogenic granuloma); DF (dermatofibroma); it has AK, " in text
    assert "Pyogenes" in text and "MACOSX" not in text
    assert "licensing.edinburgh-innovations.ed.ac.uk" in text


def test_an_id_in_two_classes_is_a_problem(tmp_path: Path) -> None:
    listing = make(tmp_path, "AK/A1/A1.png", "BCC/A1/A1.png")
    assert {record.problem for record in listing.records} == {"duplicate id A1 with differing rows"}
