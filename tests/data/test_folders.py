"""Everything below a raw folder is an image, is passed over with its kind, or is a folder that cannot be read."""

from __future__ import annotations

import errno
import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from pipeline.data import folders
from pipeline.data.folders import Found, walk


def fill(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"an image")
    return root


def images(found: Found, root: Path) -> list[str]:
    return [path.relative_to(root).as_posix() for path in found.images]


def passed(found: Found, root: Path) -> dict[str, str]:
    return {path.relative_to(root).as_posix(): kind for path, kind in found.passed_over}


def test_the_order_is_that_of_the_parts_of_paths(tmp_path: Path) -> None:
    """Splits depend on it: it must stay what `sorted(root.rglob("*"))` gave."""
    names = ["b/1.png", "a b/1.png", "a/2.png", "a/10.png", "a/B/x.png", "a.png", "a-b/1.png", "Z/1.png", "é/1.png"]
    fill(tmp_path, *names)
    assert walk(tmp_path).images == [path for path in sorted(tmp_path.rglob("*")) if path.is_file()]


def test_links_to_class_folders_are_followed(tmp_path: Path) -> None:
    fill(tmp_path / "elsewhere", "1.png", "deep/2.png")
    fill(tmp_path / "raw", "neg/1.png")
    (tmp_path / "raw" / "pos").symlink_to(tmp_path / "elsewhere")
    found = walk(tmp_path / "raw")
    assert images(found, tmp_path / "raw") == ["neg/1.png", "pos/1.png", "pos/deep/2.png"]
    assert found.passed_over == []


def test_loops_and_second_links_to_a_folder_are_named_and_not_followed(tmp_path: Path) -> None:
    raw = fill(tmp_path / "raw", "a/1.png", "b/1.png")
    fill(tmp_path / "store", "1.png")
    (raw / "a" / "up").symlink_to("..")
    (raw / "a" / "self").symlink_to(".")
    (raw / "out").symlink_to(tmp_path)
    (raw / "c").symlink_to("a")
    (raw / "d").symlink_to(tmp_path / "store")
    (raw / "e").symlink_to(tmp_path / "store")
    (tmp_path / "store" / "back").symlink_to(raw)
    found = walk(raw)
    assert images(found, raw) == ["a/1.png", "b/1.png", "d/1.png"]
    assert passed(found, raw) == {
        "a/up": folders.LOOPS,
        "a/self": folders.LOOPS,
        "out": folders.LOOPS,
        "c": folders.LISTED,
        "d/back": folders.LISTED,
        "e": folders.LISTED,
    }


def test_links_among_many_folders_end(tmp_path: Path) -> None:
    names = [f"f{number}" for number in range(12)]
    fill(tmp_path, *(f"{name}/1.png" for name in names))
    for name in names:
        for other in names:
            (tmp_path / name / f"to-{other}").symlink_to(f"../{other}")
    found = walk(tmp_path)
    assert len(found.images) == 12 and len(found.passed_over) == 144


def test_links_that_lead_nowhere_are_images_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "1.png").symlink_to("nowhere.png")
    (tmp_path / "2.png").symlink_to("2.png")
    (tmp_path / "notes.txt").symlink_to("nowhere.txt")
    found = walk(tmp_path)
    assert images(found, tmp_path) == ["1.png", "2.png"]
    assert passed(found, tmp_path) == {"notes.txt": ".txt"}


def test_every_file_that_is_no_image_has_its_kind(tmp_path: Path) -> None:
    names = [
        "a.png",
        "no_ending",
        "a.dcm",
        "scan.nii.gz",
        "scan.NII.GZ",
        "b.tar.gz",
        "x.mat",
        "t.csv",
        "._a.png",
        ".b.png",
    ]
    names += [".git/config", ".git/deep/x.png", "@eaDir/a.png", "Icon\r", "Thumbs.db", "__MACOSX/a.png", "lost+found/x"]
    fill(tmp_path, *names)
    os.mkfifo(tmp_path / "pipe.png")
    found = walk(tmp_path)
    assert images(found, tmp_path) == ["a.dcm", "a.png", "no_ending"]
    assert Counter(passed(found, tmp_path).values()) == {
        ".nii.gz": 2,
        ".tar.gz": 1,
        ".mat": 1,
        ".csv": 1,
        folders.SYSTEM: 6,
        folders.HIDDEN: 2,  # a folder counts as one
        folders.SPECIAL: 1,
    }


def test_hidden_files_count_where_they_are_asked_for(tmp_path: Path) -> None:
    fill(tmp_path, ".ipynb_checkpoints/1.png", ".2.png", "._3.png")
    assert images(walk(tmp_path, hidden=True), tmp_path) == [".2.png", ".ipynb_checkpoints/1.png"]


def test_files_and_folders_are_left_out_by_patterns(tmp_path: Path) -> None:
    fill(tmp_path, "extra/1.png", "extra/deep/2.png", "a/1_old.png", "a/1.png", "a/extra/1.png")
    found = walk(tmp_path, leave_out=["extra/", "*_old.png"])
    assert images(found, tmp_path) == ["a/1.png", "a/extra/1.png"]
    assert passed(found, tmp_path) == {"extra": folders.LEFT_OUT, "a/1_old.png": folders.LEFT_OUT}
    assert folders.is_left_out("extra/deep/2.png", ["extra"]) and not folders.is_left_out("a/extra/1.png", ["extra"])


def forbid(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Make folders unreadable; root reads every folder, so the system's answer is imitated."""
    real = os.scandir

    def scandir(path: Any) -> Any:
        if Path(path).name in names:
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)


def test_a_folder_that_cannot_be_read_is_named_with_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path, "neg/1.png", "pos/1.png")
    forbid(monkeypatch, "pos")
    found = walk(tmp_path)
    assert images(found, tmp_path) == ["neg/1.png"]
    (record,) = found.unreadable
    assert (record.path, record.problem) == (tmp_path / "pos", "a folder that cannot be read: Permission denied")
    with pytest.raises(ValueError, match="pos is a folder that cannot be read: Permission denied; make it readable"):
        folders.images_under(tmp_path)


def test_a_root_that_cannot_be_read_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file.zip").write_bytes(b"")
    with pytest.raises(ValueError, match="file.zip cannot be read: Not a directory"):
        walk(tmp_path / "file.zip")
    (tmp_path / "shut").mkdir()
    forbid(monkeypatch, "shut")
    with pytest.raises(ValueError, match="shut cannot be read: Permission denied"):
        walk(tmp_path / "shut")


def test_names_that_are_no_utf_8_are_names_like_others(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9.png")
    fill(tmp_path, name)
    assert images(walk(tmp_path), tmp_path) == [name]
