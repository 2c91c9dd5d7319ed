"""A user's folders: what is no class by its name is asked for or counted, and nothing is guessed."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest

from pipeline.data import folders
from pipeline.data.layouts import UserDataset
from pipeline.data.layouts.options import Options
from pipeline.data.records import Listing


def fill(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"an image")


def listing(root: Path, **options: object) -> Listing:
    return UserDataset("mine", "folder", Options(**options)).listing(root)  # type: ignore[arg-type]


def kinds(found: Listing) -> Counter[str]:
    return Counter(passed.kind for passed in found.passed_over)


def labels(found: Listing, root: Path) -> dict[str, str | None]:
    return {str(r.path.relative_to(root)): r.labels[0] if r.labels else None for r in found.records}


def test_a_class_folder_whose_name_differs_in_case_is_asked_for(tmp_path: Path) -> None:
    fill(tmp_path, "train/Benign/1.png", "test/benign/1.png", "test/benign/2.png", "train/x/1.png")
    with pytest.raises(ValueError, match=r"'benign' \(2\) and 'Benign' \(1\); .*--similar-classes together"):
        listing(tmp_path)
    assert listing(tmp_path, similar_classes="apart").classes == ("Benign", "benign", "x")
    joined = listing(tmp_path, similar_classes="together")
    assert joined.classes == ("benign", "x") and "'Benign' is read as 'benign'" in joined.notes[0]


def test_blanks_around_a_folders_name_make_no_other_class(tmp_path: Path) -> None:
    fill(tmp_path, "nevus/1.png", "nevus /2.png", "other/1.png", " Unlabelled/3.png")
    found = listing(tmp_path)
    assert found.classes == ("nevus", "other")
    assert labels(found, tmp_path) == {
        "nevus/1.png": "nevus",
        "nevus /2.png": "nevus",
        "other/1.png": "other",
        " Unlabelled/3.png": None,
    }


def test_a_folder_whose_name_is_no_utf_8_is_a_class_whose_name_can_be_stored(tmp_path: Path) -> None:
    fill(tmp_path, os.fsdecode(b"caf\xe9/1.png"), "other/1.png")
    assert listing(tmp_path).classes == (r"caf\xe9", "other")


def test_class_folders_that_are_links_are_followed(tmp_path: Path) -> None:
    fill(tmp_path / "store", "1.png", "2.png")
    fill(tmp_path / "raw", "neg/1.png")
    (tmp_path / "raw" / "pos").symlink_to(tmp_path / "store")
    assert labels(listing(tmp_path / "raw"), tmp_path / "raw") == {
        "neg/1.png": "neg",
        "pos/1.png": "pos",
        "pos/2.png": "pos",
    }


def test_files_left_behind_by_systems_are_passed_over_and_counted(tmp_path: Path) -> None:
    fill(tmp_path, "a/1.png", "b/1.png", "a/@eaDir/1.png", "a/.DS_Store", "a/1.nii.gz", "b/2.nii.gz", "b/notes.txt")
    found = listing(tmp_path)
    assert len(found.records) == 2
    assert kinds(found) == {folders.SYSTEM: 2, ".nii.gz": 2, ".txt": 1}


def test_a_folder_of_files_that_are_passed_over_says_so(tmp_path: Path) -> None:
    fill(tmp_path, "a/1.nii.gz", "b/1.nii.gz", "b/1.mat")
    with pytest.raises(ValueError, match=r"mine: no images under .* \(passed over: 2 \.nii\.gz, 1 \.mat\)"):
        listing(tmp_path)


def test_a_folder_next_to_the_splits_is_asked_for(tmp_path: Path) -> None:
    fill(tmp_path, "train/a/1.png", "train/b/1.png", "test/a/1.png", "extra/1.png", "extra/2.png", "unlabelled/1.png")
    with pytest.raises(ValueError, match=r"next to test, train, which are the split, .* has extra \(2 images\); move"):
        listing(tmp_path)
    found = listing(tmp_path, leave_out=("extra",))
    assert found.classes == ("a", "b") and kinds(found) == {folders.LEFT_OUT: 1}


def test_folders_of_images_and_of_masks_are_no_classes(tmp_path: Path) -> None:
    fill(tmp_path, *(f"images/{n}.png" for n in range(4)), *(f"masks/seg{n}.png" for n in range(4)))
    with pytest.raises(ValueError, match=r"images, masks, which are no classes; give --raw .*images, or take them"):
        listing(tmp_path)
    assert listing(tmp_path, masks="keep").classes == ("images", "masks")


MASKED = ("a/1.png", "a/2.png", "b/3.png")
MASKS = ("a/1_mask.png", "a/2-Segmentation.tif", "a/1_superpixels.png", "b/3mask.png", "b/3_mask_2.png", "b/3_seg.png")


def test_masks_next_to_images_are_asked_for_when_they_are_more_than_a_few(tmp_path: Path) -> None:
    fill(tmp_path, *MASKED, *MASKS)
    with pytest.raises(ValueError, match=r"6 files look like masks of other images: a/1_mask\.png, .*--masks leav"):
        listing(tmp_path)
    left = listing(tmp_path, masks="leave-out")
    assert set(labels(left, tmp_path)) == set(MASKED) and kinds(left) == {"masks": 6}
    kept = listing(tmp_path, masks="keep")
    assert len(kept.records) == 9 and not kept.notes


def test_a_few_masks_are_samples_and_said(tmp_path: Path) -> None:
    fill(tmp_path, *MASKED, *MASKS[:2])
    found = listing(tmp_path)
    assert len(found.records) == 5
    assert found.notes == ("2 samples look like masks; --masks leave-out leaves masks out",)


def test_a_name_alone_makes_no_mask(tmp_path: Path) -> None:
    names = [f"with_mask/{n}.png" for n in range(9)] + [f"without_mask/{n}.png" for n in range(9)]
    fill(tmp_path, *names, *(f"without_mask/{n}x_mask.png" for n in range(9)), "with_mask/damask.png")
    assert len(listing(tmp_path).records) == 28


def test_masks_in_a_folder_of_their_own_are_found_by_the_names_of_their_images(tmp_path: Path) -> None:
    fill(tmp_path, *(f"{c}/{c}{n}.png" for c in "ab" for n in range(4)), *(f"a/masks/a{n}.png" for n in range(4)))
    fill(tmp_path, *(f"masks/b{n}_mask.png" for n in range(4)))
    with pytest.raises(ValueError, match="8 files look like masks"):
        listing(tmp_path)
    assert listing(tmp_path, masks="leave-out").classes == ("a", "b")


def test_one_folder_gives_a_hint(tmp_path: Path) -> None:
    fill(tmp_path, "data/a/1.png", "data/b/1.png", "flat/1.png", "flat/2.png")
    with pytest.raises(ValueError, match=r"only one class, 'data', .*its folders are the classes, give --raw .*/data"):
        UserDataset("mine", "folder", Options(leave_out=("flat",))).listing(tmp_path)
    assert any("give --raw the folder above it" in note for note in listing(tmp_path / "flat").notes)


def test_groups_come_from_paths_by_a_regular_expression(tmp_path: Path) -> None:
    fill(tmp_path, "a/P01_1.png", "a/P01_2.png", "b/P02_1.png", "b/other.png")
    found = listing(tmp_path, group_from=r"/(P\d+)_")
    assert [record.group for record in found.records] == ["P01", "P01", "P02", None]
    assert found.notes == ("--group-from finds a group in 3 of 4 paths",)
    assert {record.group for record in listing(tmp_path, group_from=r"P\d+_\d").records} >= {"P01_1", "P01_2"}
    with pytest.raises(ValueError, match="finds a group in no path; the first path is 'a/P01_1.png'"):
        listing(tmp_path, group_from="patient")


def test_a_pattern_that_fits_nothing_is_an_error(tmp_path: Path) -> None:
    fill(tmp_path, "a/1.png", "b/1.png")
    with pytest.raises(ValueError, match="--leave-out 'extra' fits no file or folder"):
        listing(tmp_path, leave_out=("extra",))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"similar_classes": "both"}, "--similar-classes is 'both'; give together or apart"),
        ({"masks": "no"}, "--masks is 'no'; give leave-out or keep"),
        ({"group_from": "("}, r"--group-from is '\(', no regular expression"),
        ({"classes": ("a",), "label_column": "b"}, "--classes and --label-column do not go together"),
        ({"group_from": "x", "group_column": "b"}, "--group-from and --group-column do not go together"),
        ({"label_column": "x"}, "--label-column goes with --layout csv or dicom only"),
        ({"keep_na": True}, "--keep-na goes with --layout csv or dicom only"),
    ],
)
def test_options_that_make_no_sense_are_errors(options: dict[str, object], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        listing(tmp_path, **options)
