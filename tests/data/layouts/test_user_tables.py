"""A user's CSV files: columns, labels, paths and splits are read as they are meant, or asked for."""

from __future__ import annotations

import os
import unicodedata
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from pipeline.data import folders
from pipeline.data.layouts import UserDataset
from pipeline.data.layouts.csv_layout import OTHER_NAMES
from pipeline.data.layouts.options import Options
from pipeline.data.records import Listing

NFD = unicodedata.normalize("NFD", "mélanome")


def fill(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"an image")


def listing(root: Path, **options: object) -> Listing:
    return UserDataset("mine", "csv", Options(**options)).listing(root)  # type: ignore[arg-type]


def write(root: Path, header: str, *rows: str, name: str = "labels.csv") -> None:
    (root / name).write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")


def labelled(root: Path, *cells: str, **options: object) -> Listing:
    """A table of one image a label."""
    fill(root, *(f"{number}.png" for number in range(len(cells))))
    write(root, "image,label", *(f"{number}.png,{cell}" for number, cell in enumerate(cells)))
    return listing(root, **options)


def labels(found: Listing) -> list[str | None]:
    return [record.labels[0] if record.labels else None for record in found.records]


def names(found: Listing, root: Path) -> list[str]:
    return [os.path.relpath(record.path, root) for record in found.records]


def test_one_class_in_two_unicode_forms_is_one(tmp_path: Path) -> None:
    found = labelled(tmp_path, "mélanome", NFD, "nævus")
    assert found.classes == ("mélanome", "nævus") and labels(found) == ["mélanome", "mélanome", "nævus"]
    assert found.notes == (r"classes 'me\u0301lanome', 'mélanome' are one: mélanome",)


def test_one_class_as_a_whole_number_and_with_a_zero_behind_is_one(tmp_path: Path) -> None:
    found = labelled(tmp_path, "1", "1.0", "0")
    assert found.classes == ("0", "1") and labels(found) == ["1", "1", "0"]


def test_classes_that_differ_in_case_are_asked_for(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"'benign' \(2\) and 'Benign' \(1\)"):
        labelled(tmp_path, "Benign", "benign", "benign", "malignant")
    assert labelled(tmp_path, "Benign", "benign", "x", similar_classes="apart").classes == ("Benign", "benign", "x")


def marked(tmp_path: Path, header: str, rows: list[str], **options: Any) -> Listing:
    names = [f"{number}.png" for number in range(len(rows))]
    fill(tmp_path, *names)
    write(tmp_path, header, *(f"{name},{row}" for name, row in zip(names, rows, strict=True)))
    return listing(tmp_path, **options)


FACT = [f"{n % 2},{1 - n % 2},{int(n % 3 == 0)}" for n in range(12)]


def test_a_column_without_which_each_row_has_one_class_is_asked_for(tmp_path: Path) -> None:
    """It may be a fact about the patient under any name."""
    header = "image,benign,malignant,family_history"
    with pytest.raises(
        ValueError, match=r"without 'family_history' each row has .* --classes benign,malignant or --cl"
    ):
        marked(tmp_path, header, FACT)
    found = marked(tmp_path, header, FACT, classes=("benign", "malignant"))
    assert (found.classes, found.task, found.notes) == (("benign", "malignant"), "multi-class", ())
    found = marked(tmp_path, header, FACT, classes=("benign", "malignant", "family_history"))
    assert (len(found.classes), found.task, found.notes) == (3, "multi-label", ())


def test_a_multi_label_table_says_why_and_by_which_columns(tmp_path: Path) -> None:
    found = marked(tmp_path, "image,a,b,c", ["1,1,0", "0,0,1", "0,0,0", *FACT[:5]])
    assert found.task == "multi-label"
    assert found.notes == (
        "multi-label, since 3 rows have several classes and 1 row none; the class columns are a, b, c; --classes names "
        "others",
    )


def test_missing_values_as_pandas_writes_them_are_no_label(tmp_path: Path) -> None:
    found = labelled(tmp_path, "a", "nan", "NaN", "None", "N/A", "", "b", "nan")
    assert found.classes == ("a", "b") and labels(found) == ["a", None, None, None, None, None, "b", None]
    assert found.notes == (
        "cells of the label column that are no label: N/A (1), NaN (1), None (1), nan (2); --keep-na makes them "
        "classes",
    )
    kept = labelled(tmp_path, "a", "nan", "None", "", keep_na=True)
    assert kept.classes == ("None", "a", "nan") and labels(kept) == ["a", "nan", "None", None, *[None] * 4]


def test_missing_values_are_no_group_no_split_and_no_mark(tmp_path: Path) -> None:
    fill(tmp_path, "1.png", "2.png", "3.png")
    write(tmp_path, "image,a,b,patient,split", "1.png,1,0,nan,train", "2.png,nan,nan,P1,NaN", "3.png,0,1,,test")
    found = listing(tmp_path)
    assert [(r.labels, r.group, r.split, r.problem) for r in found.records] == [
        (("a",), None, "train", None),
        (None, "P1", None, None),
        (("b",), None, "test", None),
    ]


def test_a_group_written_as_a_whole_number_and_with_a_zero_behind_is_one(tmp_path: Path) -> None:
    fill(tmp_path, "1.png", "2.png")
    write(tmp_path, "image,label,patient", "1.png,a,7", "2.png,b,7.0")
    found = listing(tmp_path)
    assert [record.group for record in found.records] == ["7", "7"]
    assert found.notes == ("1 group is written in several ways (as 1 and 1.0)",)


def test_a_label_with_a_line_break_is_a_problem(tmp_path: Path) -> None:
    fill(tmp_path, *(f"{number}.png" for number in range(1, 5)))
    write(tmp_path, "image,label", '1.png,"a', '2.png,b"', "3.png,c", "4.png,d")
    problems = {record.path.name: record.problem for record in listing(tmp_path).records}
    broken = "line 3: its label has a line break; is a quotation mark missing?"
    assert problems == {"1.png": broken, "2.png": None, "3.png": None, "4.png": None}


# --- Columns ---


@pytest.mark.parametrize(
    ("header", "row", "message"),
    [
        (
            "image,label,lesion_id,patient_id",
            "1.png,a,L1,P1",
            r"columns that could be meant, 'lesion_id' \(1 value\)",
        ),
        ("image,diagnosis,target", "1.png,a,b", "'diagnosis' .* and 'target' .*decide with --label-column"),
        ("image,path,label", "1.png,1.png,a", "'image' .* and 'path' .*decide with --path-column"),
        ("image,Label,label", "1.png,a,b", "decide with --label-column"),
        ("image,a,a,b", "1.png,0,1,0", "has several columns called 'a'; rename or remove all but one"),
        ("image,a,b,male,age", "1.png,0,1,0,44", r"no class: male, age \(its cells are 44\).* --classes a,b, or give"),
        ("image,a,b,smoker", "1.png,0,1,0", "no class: smoker; say which"),
        ("image,a,b,notes2", "1.png,0,1,", r"no class: notes2 \(it is empty\)"),
        ("slide,label", "1.png,a", r"no path column; .*--path-column \(its columns: slide, label\)"),
        ("image,group", "1.png,a", "no label column; add `label`, .*--label-column"),
    ],
)
def test_a_table_whose_columns_are_not_clear_is_an_error_with_the_flag_that_decides(
    tmp_path: Path, header: str, row: str, message: str
) -> None:
    fill(tmp_path, "1.png")
    write(tmp_path, header, row)
    with pytest.raises(ValueError, match=message) as caught:
        listing(tmp_path)
    assert "\n" not in str(caught.value)


def test_flags_name_the_columns(tmp_path: Path) -> None:
    fill(tmp_path, "1.png", "2.png")
    write(tmp_path, "slide,dx_a,dx_b,Outcome,case,set", "1.png,1,0,x,C1,train", "2.png,1,1,y,C2,test")
    columns = {"path_column": "slide", "group_column": "CASE", "split_column": "set"}
    by_label = listing(tmp_path, label_column="outcome", **columns)
    assert by_label.classes == ("x", "y")
    assert [(r.group, r.split) for r in by_label.records] == [("C1", "train"), ("C2", "test")]
    by_mark = listing(tmp_path, classes=("dx_*",), **columns)
    assert (by_mark.classes, by_mark.task) == (("dx_a", "dx_b"), "multi-label")
    assert [record.labels for record in by_mark.records] == [("dx_a",), ("dx_a", "dx_b")]


@pytest.mark.parametrize(
    "options",
    [{"path_column": "x"}, {"label_column": "x"}, {"group_column": "x"}, {"split_column": "x"}, {"classes": ("x",)}],
)
def test_a_flag_for_a_column_that_is_not_there_names_the_columns(tmp_path: Path, options: dict[str, object]) -> None:
    fill(tmp_path, "1.png")
    write(tmp_path, "image,label", "1.png,a")
    with pytest.raises(ValueError, match=r"(is|has) 'x'; .*labels\.csv has image, label|no path column"):
        listing(tmp_path, **options)


def test_the_flag_for_groups_decides_between_patients_and_lesions(tmp_path: Path) -> None:
    fill(tmp_path, "1.png", "2.png")
    write(tmp_path, "image,label,lesion_id,patient_id", "1.png,a,L1,P1", "2.png,b,L2,P1")
    assert {record.group for record in listing(tmp_path, group_column="patient_id").records} == {"P1"}
    assert {record.group for record in listing(tmp_path, group_from=r"\d").records} == {"1", "2"}


def test_ham10000_is_read_as_it_is_published(tmp_path: Path) -> None:
    """Ids without ending, images in two folders, and facts next to the diagnosis."""
    fill(tmp_path, "HAM10000_images_part_1/ISIC_0027419.jpg", "HAM10000_images_part_2/ISIC_0025030.jpg")
    header = "lesion_id,image_id,dx,dx_type,age,sex,localization"
    rows = "HAM_0000118,ISIC_0027419,bkl,histo,80.0,male,scalp", "HAM_0000119,ISIC_0025030,nv,histo,80.0,male,scalp"
    write(tmp_path, header, *rows, name="HAM10000_metadata.csv")
    found = listing(tmp_path)
    assert found.classes == ("bkl", "nv") and [record.group for record in found.records] == [
        "HAM_0000118",
        "HAM_0000119",
    ]
    assert names(found, tmp_path) == [
        "HAM10000_images_part_1/ISIC_0027419.jpg",
        "HAM10000_images_part_2/ISIC_0025030.jpg",
    ]


def test_an_index_column_of_pandas_is_no_class(tmp_path: Path) -> None:
    fill(tmp_path, "1.png", "2.png")
    write(tmp_path, ",image,a,b,Unnamed: 4", "0,1.png,1,0,", "1,2.png,0,1,")
    found = listing(tmp_path)
    assert found.classes == ("a", "b") and found.notes == ("left out: 2 columns without a name",)


# --- Paths ---


def test_paths_are_found_as_windows_and_other_systems_write_them(tmp_path: Path) -> None:
    nfd = unicodedata.normalize("NFD", "é.png")
    fill(tmp_path, "p/1.png", f"p/{nfd}", "p/3.png", "p/4.png", "p/back\\slash.png")
    rows = ["p\\1.png,a", "p/é.png,b", "p/3,a", "./p//4.png,b", "p/back\\slash.png,a"]
    write(tmp_path, "image,label", *rows)
    found = listing(tmp_path)
    assert names(found, tmp_path) == ["p/1.png", f"p/{nfd}", "p/3.png", "p/4.png", "p/back\\slash.png"]
    assert not any(record.problem for record in found.records)


def test_names_that_are_no_utf_8_are_found_in_the_encoding_of_the_table(tmp_path: Path) -> None:
    fill(tmp_path, os.fsdecode("nævus.png".encode("cp1252")), "2.png")
    (tmp_path / "labels.csv").write_bytes("image,label\nnævus.png,a\n2.png,b\n".encode("cp1252"))
    assert labels(listing(tmp_path, encoding="cp1252")) == ["a", "b"]


def test_names_without_their_folder_are_found_where_no_row_has_one(tmp_path: Path) -> None:
    fill(tmp_path, "x/1.png", "y/2.png", "x/3.png", "y/3.png")
    write(tmp_path, "image,label", "1.png,a", "2,b", "3.png,a")
    found = listing(tmp_path)
    assert [(os.path.relpath(r.path, tmp_path), r.problem) for r in found.records[:3]] == [
        ("x/1.png", None),
        ("y/2.png", None),
        ("3.png", "names 2 files: x/3.png, y/3.png; write their folder too"),
    ]


def test_where_rows_have_folders_a_missing_file_is_not_taken_from_elsewhere(tmp_path: Path) -> None:
    fill(tmp_path, "1.png", "other/2.png", "IMG.PNG")
    write(tmp_path, "image,label", "1.png,a", "2.png,b", "img.png,b", "gone.png,b")
    problems = {record.path.name: record.problem for record in listing(tmp_path).records[:4]}
    assert problems == {
        "1.png": None,
        "2.png": "no such file; there is other/2.png",
        "img.png": "no such file; there is IMG.PNG",
        "gone.png": None,  # reading it says so
    }


def test_a_path_with_a_nul_byte_and_a_row_without_a_path_are_problems(tmp_path: Path) -> None:
    fill(tmp_path, "1.png", "2.png")
    write(tmp_path, "image,label", "1.png\0,a", ",b", ",a", "2.png,b", "1.png,a")
    found = listing(tmp_path)
    assert Counter(record.problem for record in found.records) == {
        None: 2,
        "its path holds a NUL byte": 1,
        "line 3: it has no path": 1,
        "line 4: it has no path": 1,
    }


def test_one_file_under_two_spellings_is_one_sample(tmp_path: Path) -> None:
    fill(tmp_path, "a.png", "x/b.png")
    (tmp_path / "link").symlink_to("x")
    write(tmp_path, "image,label", "a.png,p", "x/../a.png,p", "x/b.png,n", "link/b.png,p")
    found = listing(tmp_path)
    assert [record.problem for record in found.records] == [
        None,
        "duplicate path: the same row again",
        "duplicate path with differing rows",
        "duplicate path with differing rows",
    ]


def test_a_link_to_a_listed_file_is_passed_over_and_a_listed_link_is_a_sample(tmp_path: Path) -> None:
    """Some tools keep equal files as links to one: rows of both are two samples, as two equal files are."""
    fill(tmp_path, "a.png", "b.png")
    (tmp_path / "c.png").symlink_to("a.png")
    (tmp_path / "d.png").symlink_to("a.png")
    write(tmp_path, "image,label", "a.png,p", "b.png,n", "c.png,p")
    found = listing(tmp_path)
    assert names(found, tmp_path) == ["a.png", "b.png", "c.png"] and not any(r.problem for r in found.records)
    assert [tuple(passed) for passed in found.passed_over] == [(tmp_path / "d.png", OTHER_NAMES)]


def test_a_file_that_a_row_names_is_never_passed_over(tmp_path: Path) -> None:
    fill(tmp_path, "a.mat", ".hidden.png", "b.txt", "c.png")
    write(tmp_path, "image,label", "a.mat,p", ".hidden.png,n", "c.png,n")
    found = listing(tmp_path)
    assert len(found.records) == 3 and Counter(passed.kind for passed in found.passed_over) == {".txt": 1}


def test_masks_that_no_row_names_are_asked_for(tmp_path: Path) -> None:
    fill(tmp_path, *(f"images/{n}.png" for n in range(6)), *(f"masks/{n}.png" for n in range(6)), "images/1_mask.png")
    write(tmp_path, "image,label", *(f"images/{n}.png,{'ab'[n % 2]}" for n in range(6)), "images/1_mask.png,a")
    with pytest.raises(ValueError, match="6 files look like masks of other images: masks/0.png, "):
        listing(tmp_path)
    assert Counter(passed.kind for passed in listing(tmp_path, masks="leave-out").passed_over) == {"masks": 6}
    assert labels(listing(tmp_path, masks="keep")).count(None) == 6


def test_left_out_masks_do_not_stand_in_the_way_of_ids(tmp_path: Path) -> None:
    fill(tmp_path, *(f"images/{n}.png" for n in range(6)), *(f"masks/{n}.png" for n in range(6)))
    write(tmp_path, "image_id,label", *(f"{n},{'ab'[n % 2]}" for n in range(6)))
    assert names(listing(tmp_path, masks="leave-out"), tmp_path) == [f"images/{n}.png" for n in range(6)]


def test_rows_of_files_that_are_left_out_are_counted(tmp_path: Path) -> None:
    fill(tmp_path, "x/1.png", "2.png", "3.png")
    write(tmp_path, "image,label", "x/1.png,a", "2.png,a", "3.png,b")
    found = listing(tmp_path, leave_out=("x",))
    assert names(found, tmp_path) == ["2.png", "3.png"]
    assert found.notes == ("1 row names a file that --leave-out leaves out",)
    assert [passed.kind for passed in found.passed_over] == [folders.LEFT_OUT]


# --- Tables ---


def test_one_table_a_split_says_the_split_in_its_name(tmp_path: Path) -> None:
    fill(tmp_path, *(f"{n}.png" for n in range(5)))
    write(tmp_path, "image,label", "0.png,a", "1.png,b", name="train.csv")
    write(tmp_path, "image,label,split", "2.png,a,", "3.png,b,train", name="labels_Test.csv")
    write(tmp_path, "image", "4.png", name="validation.tsv")
    found = listing(tmp_path)
    assert {record.path.name: (record.split, record.labels) for record in found.records} == {
        "0.png": ("train", ("a",)),
        "1.png": ("train", ("b",)),
        "2.png": ("test", ("a",)),
        "3.png": ("train", ("b",)),
        "4.png": ("val", None),
    }
    problems = [record.problem for record in found.records if record.problem]
    assert problems == ["labels_Test.csv, line 3: split 'train' in a table whose name says test"]
    assert found.notes == ("the names of the tables say the split: labels_Test.csv, train.csv, validation.tsv",)


def test_a_file_in_two_tables_is_a_contradiction(tmp_path: Path) -> None:
    fill(tmp_path, "0.png", "1.png")
    for name in ("train.csv", "test.csv"):
        write(tmp_path, "image,label", "0.png,a", f"{len(name) % 2}.png,b", name=name)
    assert "duplicate path with differing rows" in {record.problem for record in listing(tmp_path).records}


def test_tables_of_marks_must_have_the_same_classes(tmp_path: Path) -> None:
    fill(tmp_path, "0.png", "1.png")
    write(tmp_path, "image,a,b", "0.png,1,0", name="train.csv")
    write(tmp_path, "image,b,a", "1.png,1,0", name="test.csv")
    found = listing(tmp_path)
    assert {record.path.name: record.labels for record in found.records} == {"0.png": ("a",), "1.png": ("b",)}
    write(tmp_path, "image,b,c", "1.png,1,0", name="test.csv")
    with pytest.raises(ValueError, match=r"test\.csv has b, c; .*train\.csv has a, b; name their columns alike"):
        listing(tmp_path)


def test_of_several_tables_the_others_are_left_out_by_a_flag(tmp_path: Path) -> None:
    fill(tmp_path, "0.png", "1.png")
    write(tmp_path, "image,label", "0.png,a", "1.png,b", name="labels.csv")
    write(tmp_path, "image,label", "0.png,x", name="sample_submission.csv")
    with pytest.raises(ValueError, match=r"found: labels\.csv, sample_submission\.csv; leave the others out"):
        listing(tmp_path)
    found = listing(tmp_path, leave_out=("sample*",))
    assert found.classes == ("a", "b") and len(found.passed_over) == 1


@pytest.mark.parametrize("name", ["LABELS.CSV", "labels.tsv"])
def test_tables_are_found_by_any_spelling_of_their_ending(tmp_path: Path, name: str) -> None:
    fill(tmp_path, "0.png", "1.png", "._labels.csv", ".old.csv")
    write(tmp_path, "image\tlabel", "0.png\ta", "1.png\tb", name=name)
    assert listing(tmp_path).classes == ("a", "b")


def test_a_folder_that_cannot_be_read_is_in_the_listing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.scandir

    def scandir(path: object) -> object:
        if str(path).endswith("shut"):
            raise PermissionError(13, "Permission denied")
        return real(path)  # type: ignore[call-overload]

    fill(tmp_path, "1.png", "2.png", "shut/3.png")
    write(tmp_path, "image,label", "1.png,a", "2.png,b")
    monkeypatch.setattr(os, "scandir", scandir)
    assert listing(tmp_path).records[-1].problem == "a folder that cannot be read: Permission denied"
