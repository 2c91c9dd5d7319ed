"""Brain MRI as delivered: the curator's Training and Testing folders are the split."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.data.datasets.brain_mri import DATASET

CLASSES = ("glioma", "meningioma", "notumor", "pituitary")


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    for part in ("Training", "Testing"):
        for label in CLASSES:
            (tmp_path / part / label).mkdir(parents=True)
            (tmp_path / part / label / f"{part[:2]}-{label[:2]}_0001.jpg").write_bytes(b"an image")
    return tmp_path


def test_the_folders_are_the_classes_and_the_curators_split(raw: Path) -> None:
    listing = DATASET.listing(raw)
    assert (listing.classes, listing.task) == (CLASSES, "multi-class")
    found = {(record.key, record.labels, record.split) for record in listing.records}
    assert len(listing.records) == 8
    assert found == {
        (f"{part[:2]}-{label[:2]}_0001", (label,), split)
        for part, split in (("Training", "train"), ("Testing", "test"))
        for label in CLASSES
    }


def test_the_checkpoint_copy_of_a_notebook_is_kept_as_the_curator_delivered_it(raw: Path) -> None:
    hidden = raw / "Testing" / "notumor" / ".ipynb_checkpoints"
    hidden.mkdir()
    (hidden / "Te-no_0001-checkpoint.jpg").write_bytes(b"an image")
    keys = {record.key for record in DATASET.listing(raw).records}
    assert "Te-no_0001-checkpoint" in keys


def test_an_id_in_two_folders_is_a_problem(raw: Path) -> None:
    (raw / "Training" / "glioma" / "Te-gl_0001.jpg").write_bytes(b"another")
    problems = {record.path: record.problem for record in DATASET.listing(raw).records if record.problem}
    assert set(problems) == {raw / part / "glioma" / "Te-gl_0001.jpg" for part in ("Training", "Testing")}
    assert set(problems.values()) == {"duplicate id Te-gl_0001 with differing rows"}


def test_ids_hold_no_periods_because_readers_split_names_there(raw: Path) -> None:
    (raw / "Training" / "glioma" / "Tr-gl_0002.rotated.jpg").write_bytes(b"an image")
    assert "Tr-gl_0002_rotated" in {record.key for record in DATASET.listing(raw).records}


def test_a_missing_class_folder_is_named(raw: Path) -> None:
    (raw / "Testing" / "pituitary").rename(raw / "elsewhere")
    with pytest.raises(ValueError, match=r"brain_mri: there is no .*Testing/pituitary; .*kaggle\.com"):
        DATASET.listing(raw)


def test_the_delivered_files_are_5708_and_1312(shared: Path) -> None:
    records = DATASET.listing(shared / "brain_mri").records
    assert not [record for record in records if record.problem]
    assert [sum(record.split == split for record in records) for split in ("train", "test")] == [5708, 1312]
