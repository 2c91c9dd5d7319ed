"""A user's own images, in folders or with a CSV file; errors in them are named and never guessed away."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.data.layouts import UserDataset
from pipeline.data.records import Listing


def folders(root: Path, *names: str) -> Listing:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"an image")
    return UserDataset("mine", "folder").listing(root)


def table(root: Path, text: str, *images: str) -> Listing:
    for name in images:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"an image")
    (root / "images.csv").write_text(text, encoding="utf-8")
    return UserDataset("mine", "csv").listing(root)


def facts(listing: Listing, root: Path) -> dict[str, tuple[object, ...]]:
    """Each image's labels, group, split and problem by its path."""
    return {
        str(record.path.relative_to(root)): (record.labels, record.group, record.split, record.problem)
        for record in listing.records
    }


def test_one_folder_a_class(tmp_path: Path) -> None:
    listing = folders(tmp_path, "naevus/1.jpg", "melanoma/1.PNG", "melanoma/deeper/2.tif")
    assert (listing.classes, listing.task) == (("melanoma", "naevus"), "multi-class")
    assert facts(listing, tmp_path) == {
        "melanoma/1.PNG": (("melanoma",), None, None, None),
        "melanoma/deeper/2.tif": (("melanoma",), None, None, None),
        "naevus/1.jpg": (("naevus",), None, None, None),
    }
    assert {record.key for record in listing.records} == {None}  # a file name can hold a patient's name


def test_images_outside_the_class_folders_have_no_label(tmp_path: Path) -> None:
    listing = folders(tmp_path, "a/1.jpg", "b/1.jpg", "loose.jpg", "unlabelled/1.jpg", "Unlabeled/x/2.jpg")
    assert listing.classes == ("a", "b")
    unlabelled = {name for name, (labels, *_) in facts(listing, tmp_path).items() if labels is None}
    assert unlabelled == {"loose.jpg", "unlabelled/1.jpg", "Unlabeled/x/2.jpg"}


def test_train_val_and_test_folders_are_the_split(tmp_path: Path) -> None:
    listing = folders(
        tmp_path, "train/a/1.jpg", "Training/b/1.jpg", "valid/a/2.jpg", "test/b/2.jpg", "train/unlabelled/3.jpg"
    )
    assert listing.classes == ("a", "b")
    assert facts(listing, tmp_path) == {
        "train/a/1.jpg": (("a",), None, "train", None),
        "Training/b/1.jpg": (("b",), None, "train", None),
        "valid/a/2.jpg": (("a",), None, "val", None),
        "test/b/2.jpg": (("b",), None, "test", None),
        "train/unlabelled/3.jpg": (None, None, "train", None),
    }


def test_hidden_files_and_files_that_are_no_images_are_skipped(tmp_path: Path) -> None:
    listing = folders(
        tmp_path, "a/1.jpg", "b/1.jpg", "a/notes.txt", "a/.1.jpg", ".git/x.png", "a/.ipynb_checkpoints/1.jpg"
    )
    assert set(facts(listing, tmp_path)) == {"a/1.jpg", "b/1.jpg"}


def test_images_without_any_label_are_a_dataset_to_pretrain_on(tmp_path: Path) -> None:
    listing = folders(tmp_path, "1.jpg", "2.jpg")
    assert listing.classes == ()
    assert [record.labels for record in listing.records] == [None, None]


def test_a_folder_without_images_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"mine: no images under .*docs/datasets\.md"):
        folders(tmp_path, "a/notes.txt")


def test_a_single_class_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="only one class, 'a', under"):
        folders(tmp_path, "a/1.jpg", "a/2.jpg")


def test_a_single_class_because_the_other_has_volumes_is_explained(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"under .* \(passed over: 1 \.nii\.gz\); --slices all reads"):
        folders(tmp_path, "a/1.jpg", "b/2.nii.gz")


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="mine: there is no .*nowhere; give --raw"):
        UserDataset("mine", "folder").listing(tmp_path / "nowhere")


def test_an_unknown_layout_is_an_error_that_names_the_known_ones() -> None:
    with pytest.raises(ValueError, match="--layout is 'zip'; known: folder, csv"):
        UserDataset("mine", "zip")


def test_a_csv_with_one_label_column(tmp_path: Path) -> None:
    listing = table(
        tmp_path,
        "\ufeffFile, Diagnosis ,patient,split\na.jpg,naevus,P1,Training\nsub/b.jpg, melanoma ,P1,TEST\nc.jpg,,,\n",
        "a.jpg",
        "sub/b.jpg",
        "c.jpg",
        "no_row.jpg",
    )
    assert (listing.classes, listing.task) == (("melanoma", "naevus"), "multi-class")
    assert facts(listing, tmp_path) == {
        "a.jpg": (("naevus",), "P1", "train", None),
        "sub/b.jpg": (("melanoma",), "P1", "test", None),
        "c.jpg": (None, None, None, None),
        "no_row.jpg": (None, None, None, None),
    }


def test_a_csv_with_one_column_a_class_is_multi_label(tmp_path: Path) -> None:
    listing = table(
        tmp_path,
        "image,lesion,oedema,mass,fracture\na.jpg,L1,1,1,0\nb.jpg,L1,0,0,0\nc.jpg,,,,\nd.jpg,,No,TRUE,0.0\n",
        "a.jpg",
        "b.jpg",
        "c.jpg",
        "d.jpg",
    )
    assert (listing.classes, listing.task) == (("oedema", "mass", "fracture"), "multi-label")
    assert facts(listing, tmp_path) == {
        "a.jpg": (("oedema", "mass"), "L1", None, None),
        "b.jpg": ((), "L1", None, None),  # labelled as none of the classes
        "c.jpg": (None, None, None, None),
        "d.jpg": (("mass",), None, None, None),
    }


def test_a_csv_with_one_mark_in_every_row_is_multi_class(tmp_path: Path) -> None:
    listing = table(tmp_path, "image,a,b\n1.jpg,1,0\n2.jpg,0,1\n3.jpg,,\n", "1.jpg", "2.jpg", "3.jpg")
    assert (listing.classes, listing.task) == (("a", "b"), "multi-class")


def test_bad_cells_are_problems_that_name_line_and_value(tmp_path: Path) -> None:
    listing = table(
        tmp_path,
        "image,label,split\n1.jpg,a,holdout\n2.jpg,a|b,\n3.jpg,a,\n4.jpg,b,\nnot_there.jpg,b,\n",
        *(f"{number}.jpg" for number in (1, 2, 3, 4)),
    )
    problems = {name: problem for name, (*_, problem) in facts(listing, tmp_path).items()}
    assert problems == {
        "1.jpg": "line 2: split 'holdout' is none of train, val, test",
        "2.jpg": "line 3: 2 classes in one row: a, b",
        "3.jpg": None,
        "4.jpg": None,
        "not_there.jpg": None,  # it is found when the file is read
    }


def test_a_mark_that_is_neither_0_nor_1_is_a_problem(tmp_path: Path) -> None:
    listing = table(
        tmp_path, "image,a,b\n1.jpg,1,0\n2.jpg,2,0\n3.jpg,1,\n4.jpg,0,1\n", *(f"{n}.jpg" for n in (1, 2, 3, 4))
    )
    assert [record.problem for record in listing.records] == [
        None,
        "line 3: a is '2', neither 0 nor 1",
        "line 4: b is '', neither 0 nor 1",
        None,
    ]


def test_a_repeated_row_counts_once_and_contradicting_rows_are_all_problems(tmp_path: Path) -> None:
    rows = ["1.jpg,a,train", "1.jpg,a,train", "2.jpg,a,train", "2.jpg,b,train", "3.jpg,b,train", "3.jpg,b,test"]
    listing = table(tmp_path, "\n".join(["image,label,split", *rows]) + "\n", "1.jpg", "2.jpg", "3.jpg")
    again, differing = "duplicate path: the same row again", "duplicate path with differing rows"
    assert [record.problem for record in listing.records] == [None, again] + [differing] * 4


def test_a_csv_of_bad_rows_alone_is_no_error_because_they_are_quarantined(tmp_path: Path) -> None:
    listing = table(tmp_path, "image,label\n1.jpg,a|b\n2.jpg,b|c\n", "1.jpg", "2.jpg")
    assert all(record.problem for record in listing.records)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("picture,label\n1.jpg,a\n", r"images\.csv has no path column; name one of its columns image or path"),
        ("image|label\n1.jpg|a\n", r"images\.csv has no path column"),
        ("image,group\n1.jpg,a\n", r"images\.csv has no label column; add `label`, or one column of 0 and 1 a class"),
        ("image,label\n1.jpg,a\n2.jpg\n", r"images\.csv, line 3: it has more or fewer cells than the header"),
        ("image,label\n1.jpg,a,b\n", r"images\.csv, line 2: it has more or fewer cells than the header"),
        ("image,label\n1.jpg,a\n", "only one class, 'a'"),
        ("", r"images\.csv has no path column"),
    ],
)
def test_a_csv_that_cannot_be_understood_is_an_error(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        table(tmp_path, text, "1.jpg", "2.jpg")


def test_a_csv_in_another_encoding_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "images.csv").write_bytes("image,label\n1.jpg,nævus\n".encode("latin-1"))
    with pytest.raises(ValueError, match=r"images\.csv is not UTF-8 .*; save it as UTF-8"):
        UserDataset("mine", "csv").listing(tmp_path)


@pytest.mark.parametrize("names", [(), ("a.csv", "b.csv")])
def test_no_csv_or_several_are_an_error(tmp_path: Path, names: tuple[str, ...]) -> None:
    for name in names:
        (tmp_path / name).write_text("image,label\n")
    with pytest.raises(ValueError, match=f"needs exactly one CSV file in .*found: {', '.join(names) or 'none'}"):
        UserDataset("mine", "csv").listing(tmp_path)
