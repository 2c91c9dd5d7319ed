"""The shard command as a user runs it: on a messy folder, on the toy and on real images."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import messy
import numpy as np
import pyarrow.parquet as parquet
import pytest
from stock_reader import samples

import pipeline.shard
from pipeline.core import console, files
from pipeline.data.datasets import toy


def shard(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", "-m", "pipeline.shard", *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True)


def only_folder(out: Path) -> Path:
    folders = [path for path in out.iterdir() if not path.name.startswith(".")]
    assert len(folders) == 1
    return folders[0]


def rows_of(folder: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = parquet.read_table(folder / "index.parquet").to_pylist()
    return rows


def contents(folder: Path) -> dict[str, str]:
    return {path.name: files.sha256_file(path) for path in folder.iterdir()}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, messy.Messy]:
    root = tmp_path_factory.mktemp("messy")
    return root, messy.make(root)


@pytest.fixture(scope="module")
def sharded(
    made: tuple[Path, messy.Messy], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """The messy folder's shards with --max-bad 0.5, and the output of the command."""
    home = tmp_path_factory.mktemp("home")
    done = shard(*MESSY, made[0], "--max-bad", "0.5", cwd=home)
    assert done.returncode == 0, done.stderr
    return home, done


MESSY = ("messy", "--layout", "csv", "--size", "32", "--workers", "2", "--raw")


def test_the_messy_folder_holds_200_images_of_every_kind(made: tuple[Path, messy.Messy]) -> None:
    root, content = made
    assert sum(path.is_file() and path.suffix != ".csv" for path in root.rglob("*")) == messy.IMAGES
    assert len(content.unlabelled) == 16
    assert {path.suffix for path in root.rglob("*.*")} >= {".jpg", ".JPG", ".jpeg", ".png", ".tif", ".tiff", ".dcm"}


def test_every_bad_file_is_in_the_closing_table_with_its_reason(
    made: tuple[Path, messy.Messy], sharded: tuple[Path, subprocess.CompletedProcess[str]]
) -> None:
    _, content = made
    text = sharded[1].stdout
    assert f"{len(content.bad)} of {content.total} quarantined" in text
    table = text[text.index("quarantined") :].splitlines()
    said = sorted(re.split(r"\s{2,}", line, maxsplit=1) for line in table if re.match(r"\w+/\S+  ", line))
    assert [name for name, _ in said] == sorted(name for name, _ in content.bad)
    for (_, reason), (_, wanted) in zip(said, sorted(content.bad), strict=True):
        assert wanted in reason


def test_every_good_file_is_a_sample(
    made: tuple[Path, messy.Messy], sharded: tuple[Path, subprocess.CompletedProcess[str]]
) -> None:
    _, content = made
    folder = only_folder(sharded[0] / "shards")
    rows = rows_of(folder)
    assert len(rows) == len(content.good)
    assert Counter(row["labels"][0] if row["labels"] else None for row in rows) == Counter(
        None if name in content.unlabelled else name.split("/")[0] for name in content.good
    )
    assert {row["split"] for row in rows if row["labels"] is None} == {"train"}
    assert all((row["width"], row["height"]) in ((48, 36), (36, 48)) for row in rows)


def test_the_closing_table_counts_what_the_index_holds(
    sharded: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    folder = only_folder(sharded[0] / "shards")
    rows = rows_of(folder)
    printed = {
        words[0]: [int(word) for word in words[1:]]
        for words in (line.split() for line in sharded[1].stdout.splitlines())
        if len(words) == 4 and all(word.isdigit() for word in words[1:])
    }
    splits = ("train", "val", "test")
    expected = {
        name: [sum(row["split"] == split and row["labels"] == [name] for row in rows) for split in splits]
        for name in messy.CLASSES
    }
    expected["unlabelled"] = [16, 0, 0]
    expected["images"] = [sum(row["split"] == split for row in rows) for split in splits]
    assert printed == expected

    trained = {row["group"] for row in rows if row["split"] == "train"} - {None}
    leaking = sum(row["split"] == "test" and row["group"] in trained for row in rows)
    assert leaking > 0
    assert f"{leaking} test images share a lesion or patient with a training image" in sharded[1].stdout
    sides: dict[str, set[str]] = {}
    for row in rows:  # equal files give equal bytes, and no other images here are equal
        sides.setdefault(row["sha256"], set()).add(row["split"])
    crossing = sum(len(sides[row["sha256"]]) > 1 for row in rows)
    assert 0 < crossing <= 12
    assert f"{crossing} files are byte-identical to one in another split" in sharded[1].stdout
    assert str(folder.relative_to(sharded[0])) in sharded[1].stdout


def test_no_name_of_a_patient_is_in_the_shards(sharded: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    folder = only_folder(sharded[0] / "shards")
    for path in folder.iterdir():
        if path.name != "manifest.json":  # it names the quarantined files
            assert b"Doe" not in path.read_bytes()
    manifest = json.loads((folder / "manifest.json").read_text())
    del manifest["quarantined"]
    assert "Doe" not in json.dumps(manifest)


def test_a_second_run_has_nothing_to_do(
    made: tuple[Path, messy.Messy], sharded: tuple[Path, subprocess.CompletedProcess[str]]
) -> None:
    home, first = sharded
    before = {path: path.stat().st_mtime_ns for path in (home / "shards").rglob("*")}
    again = shard(*MESSY, made[0], "--max-bad", "0.5", cwd=home)
    assert again.returncode == 0, again.stderr
    assert "is complete already; nothing to do" in again.stdout
    assert first.stdout.splitlines()[:10] == again.stdout.splitlines()[1:11]
    assert {path: path.stat().st_mtime_ns for path in (home / "shards").rglob("*")} == before


@pytest.mark.parametrize("option", [("--strict",), ()])
def test_a_second_run_that_accepts_less_is_an_error_and_the_shards_stay(
    made: tuple[Path, messy.Messy], sharded: tuple[Path, subprocess.CompletedProcess[str]], option: tuple[str, ...]
) -> None:
    home, _ = sharded
    before = contents(only_folder(home / "shards"))
    again = shard(*MESSY, made[0], *option, cwd=home)
    assert again.returncode == 2
    assert f"{len(made[1].bad)} of {made[1].total} images cannot be used" in again.stderr
    assert contents(only_folder(home / "shards")) == before


def test_strict_ends_with_2_and_leaves_no_index(made: tuple[Path, messy.Messy], tmp_path: Path) -> None:
    done = shard(*MESSY, made[0], "--strict", cwd=tmp_path)
    assert done.returncode == 2
    assert "images cannot be used and --strict accepts none; fix them or omit --strict:" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.rglob("index.parquet")) and not list(tmp_path.rglob("manifest.json"))


def test_strict_finds_an_image_that_only_decoding_shows_to_be_bad(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for label in messy.CLASSES:
        (tmp_path / "raw" / label).mkdir(parents=True)
        for number in range(4):
            data = messy.encoded(messy.image_of(label, rng), "JPEG")
            (tmp_path / "raw" / label / f"{number}.jpg").write_bytes(data)
    broken = tmp_path / "raw" / "naevus" / "3.jpg"
    broken.write_bytes(broken.read_bytes()[:-100])
    arguments = ("mine", "--layout", "folder", "--raw", "raw", "--size", "16", "--workers", "1")
    done = shard(*arguments, "--strict", cwd=tmp_path)
    assert done.returncode == 2
    assert "naevus/3.jpg: is damaged: premature end" in done.stderr
    assert not list(tmp_path.rglob("index.parquet")) and not list(tmp_path.rglob("manifest.json"))
    assert shard(*arguments, "--max-bad", "0.1", cwd=tmp_path).returncode == 0


def test_a_dry_run_prints_what_would_be_written_and_writes_nothing(
    made: tuple[Path, messy.Messy], tmp_path: Path
) -> None:
    done = shard(*MESSY, made[0], "--dry-run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert re.search(r"would write \d+ images in 3 tars to shards/messy-32-image-[0-9a-f]{8}\n", done.stdout)
    assert "keratosis/never_delivered.jpg  no such file" in done.stdout
    assert not list(tmp_path.iterdir())


def command(monkeypatch: pytest.MonkeyPatch, home: Path, *arguments: str) -> int | str | None:
    """The command within this process; returns its exit code."""
    monkeypatch.chdir(home)
    monkeypatch.setattr(sys, "argv", ["shard", *arguments])
    with pytest.raises(SystemExit) as caught:
        console.run_command(pipeline.shard.main)
    return caught.value.code


def test_a_dry_run_of_the_toy_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(toy, "COUNTS", {"disc": 4, "ring": 4, "square": 4, "cross": 4, "unlabelled": 4})
    assert command(monkeypatch, tmp_path, "toy", "--size", "32", "--workers", "1", "--dry-run") == 0
    assert "would write 20 images in 3 tars to shards/toy-32-image-" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


def test_a_dry_run_prints_the_closing_table_and_lists_every_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(0)
    for number in range(20):
        path = tmp_path / "raw" / "ab"[number % 2] / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(messy.encoded(messy.image_of("naevus", rng), "JPEG"))
    (tmp_path / "raw" / "a" / "report.pdf").write_bytes(b"")
    arguments = ("mine", "--layout", "folder", "--raw", "raw", "--size", "16", "--workers", "1", "--list", "files.txt")
    assert command(monkeypatch, tmp_path, *arguments, "--dry-run") == 0
    planned = capsys.readouterr().out
    assert {path.name for path in tmp_path.iterdir()} == {"raw", "files.txt"}
    assert "21 found: 20 written, 0 quarantined, 1 passed over" in planned
    assert command(monkeypatch, tmp_path, *arguments) == 0
    written = capsys.readouterr().out
    table = written.splitlines()[2:10]
    assert table == planned.splitlines()[3:11] and "a               8    1     1" in table
    listed = (tmp_path / "files.txt").read_text().splitlines()
    assert "passed over\t.pdf\ta/report.pdf" in listed and len(listed) == 21


def test_extend_adds_what_is_new_and_refuses_images_stored_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(0)
    for number in range(20):
        path = tmp_path / "raw" / "ab"[number % 2] / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(messy.encoded(messy.image_of("naevus", rng), "JPEG"))
    arguments = ("mine", "--layout", "folder", "--raw", "raw", "--workers", "1")
    assert command(monkeypatch, tmp_path, *arguments, "--size", "16", "--format", "png") == 0
    old = only_folder(tmp_path / "shards")
    extend = ("--extend", str(old))
    assert command(monkeypatch, tmp_path, *arguments, *extend) == 0
    assert f"there is nothing to add to {old}; nothing to do" in capsys.readouterr().out
    for name in "ab":
        (tmp_path / "broken" / name).mkdir(parents=True)
        (tmp_path / "broken" / name / "cut.png").write_bytes(b"")
    broken = (*arguments, "--raw", "broken", *extend, "--list", "broken.lst")
    assert command(monkeypatch, tmp_path, *broken, "--strict") == 2
    assert "2 of 2 images cannot be used and --strict accepts none" in capsys.readouterr().err
    assert command(monkeypatch, tmp_path, *broken, "--max-bad", "1") == 0
    assert "there is nothing to add" in capsys.readouterr().out
    assert (tmp_path / "broken.lst").read_text() == "".join(f"quarantined\tis empty\t{n}/cut.png\n" for n in "ab")
    (tmp_path / "raw" / "a" / "new.jpg").write_bytes(messy.encoded(messy.image_of("keratosis", rng), "JPEG"))
    assert command(monkeypatch, tmp_path, *arguments, *extend, "--size", "32") == 2
    assert "--size is 32, and the images of" in capsys.readouterr().err
    assert command(monkeypatch, tmp_path, *arguments, *extend, "--size", "16") == 0
    said = capsys.readouterr().out
    assert "its 20 images stay as they are" in said and "21 found: 1 written" in said
    (new,) = set((tmp_path / "shards").iterdir()) - {old}
    assert rows_of(new)[:20] == rows_of(old) and new.name.startswith("mine-16-image-")
    assert command(monkeypatch, tmp_path, *arguments, *extend) == 0
    assert "is complete already" in capsys.readouterr().out


def test_the_flags_for_layouts_reach_the_listing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "raw").mkdir()
    rng = np.random.default_rng(0)
    for number in range(12):
        data = messy.encoded(messy.image_of("naevus", rng), "JPEG")
        (tmp_path / "raw" / f"P{number // 2}_{number}.jpg").write_bytes(data)
    rows = [f"P{number // 2}_{number}.jpg,{'xé'[number % 2]},5,NA" for number in range(12)]
    text = "slide,finding,age,remark\n" + "\n".join(rows) + "\n"
    (tmp_path / "raw" / "labels.csv").write_bytes(text.encode("cp1252"))
    arguments = ("mine", "--layout", "csv", "--raw", "raw", "--size", "16", "--workers", "1", "--dry-run")
    flags = ("--path-column", "slide", "--label-column", "finding", "--encoding", "cp1252", "--group-from", r"(P\d+)_")
    assert command(monkeypatch, tmp_path, *arguments) == 2
    capsys.readouterr()
    assert command(monkeypatch, tmp_path, *arguments, *flags, "--split", "grouped") == 0
    out = capsys.readouterr().out
    assert "x " in out and "é " in out and "0 test images share a lesion or patient with a training image\n" in out


def test_of_two_jobs_at_once_the_second_is_an_error(
    made: tuple[Path, messy.Messy], sharded: tuple[Path, subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    folder = tmp_path / "shards" / only_folder(sharded[0] / "shards").name
    with files.lock(folder / ".lock"):
        done = shard(*MESSY, made[0], "--max-bad", "0.5", cwd=tmp_path)
    assert done.returncode == 2
    assert "error: another process is at work on shards/messy-32-image-" in done.stderr
    assert [path.name for path in folder.iterdir()] == [".lock"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("iscc", "--raw", "."), "there is no dataset 'iscc'; known: autoimmune, brain_mri, "),
        (("isic",), "isic: give --raw the folder that holds the files. It is public"),
        (("isic", "--raw", "."), "isic: there is no ISIC_2019_Training_GroundTruth.csv"),
        (("isic", "--raw", ".", "--layout", "folder"), "'isic' is a known dataset; with --layout give your images"),
        (("folder", "--raw", "."), "give your images a name of their own"),
        (
            ("My Lesions", "--layout", "folder", "--raw", "."),
            "the dataset's name is 'My Lesions'; use lower-case letters",
        ),
        (("mine", "--layout", "folder", "--raw", "nowhere"), "mine: there is no nowhere; give --raw"),
        (("mine", "--layout", "folder", "--raw", "."), "mine: no images under ."),
        (("isic", "--raw", ".", "--masks", "keep"), "--masks goes with --layout folder or csv only; omit it"),
        (
            ("mine", "--layout", "folder", "--raw", ".", "--encoding", "x"),
            "--encoding goes with --layout csv or dicom only",
        ),
        (("toy", "--size", "4"), "--size is 4; give a side between 8 and 4096 pixels"),
        (("toy", "--workers", "0"), "--workers is 0; give 1 or more"),
        (("toy", "--max-bad", "5"), "--max-bad is 5.0; give a fraction between 0 and 1"),
        (("dermofit", "--raw", "."), "dermofit: . has no folder for AK (actinic keratosis); BCC"),
    ],
)
def test_a_wrong_request_ends_with_2_and_says_what_to_do(
    arguments: tuple[str, ...],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert command(monkeypatch, tmp_path, *arguments) == 2
    assert f"error: {message}" in capsys.readouterr().err
    assert not (tmp_path / "shards").exists()


@pytest.mark.parametrize(("name", "images"), [("autoimmune", 40), ("brain_mri", 80), ("dermofit", 100), ("isic", 80)])
def test_stand_ins_of_the_papers_datasets_are_sharded_and_named_as_stand_ins(
    name: str,
    images: int,
    stand_ins: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    raw = str(stand_ins[name])
    assert command(monkeypatch, tmp_path, name, "--raw", raw, "--size", "32", "--workers", "1", "--strict") == 0
    out = capsys.readouterr().out
    assert "holds a stand-in: drawn images, not the dataset" in out
    assert f"0 of {images} quarantined" in out
    rows = rows_of(only_folder(tmp_path / "shards"))
    assert len(rows) == images
    published = [row["key"] for row in rows if re.fullmatch(r"(ISIC|Tr-|Te-|[A-J]\d).*", row["key"])]
    assert len(published) == (0 if name == "autoimmune" else images)  # the others are hashes


def test_isics_2994_images_are_sharded_reproducibly_and_the_stock_reader_reads_them(
    shared: Path, tmp_path: Path
) -> None:
    command = ("isic", "--raw", shared / "isic2019", "--size", "64")
    first = shard(*command, "--workers", "2", cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    assert "0 of 2994 quarantined" in first.stdout
    folder = only_folder(tmp_path / "shards")
    assert len(samples(folder.glob("*.tar"))) == 2994
    assert Counter(row["split"] for row in rows_of(folder)) == {"train": 2396, "val": 299, "test": 299}

    again = shard(*command, "--workers", "2", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert "nothing to do" in again.stdout

    other = shard(*command, "--workers", "3", "--out", tmp_path / "other", cwd=tmp_path)
    assert other.returncode == 0, other.stderr
    assert contents(only_folder(tmp_path / "other")) == contents(folder)


def test_brain_mris_test_images_are_exactly_the_curators(shared: Path, tmp_path: Path) -> None:
    done = shard("brain_mri", "--raw", shared / "brain_mri", "--size", "64", "--workers", "2", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "0 of 7020 quarantined" in done.stdout
    rows = rows_of(only_folder(tmp_path / "shards"))
    testing = shared / "brain_mri" / "Testing"
    delivered = {path.stem: path.relative_to(testing).parts[0] for path in testing.rglob("*.jpg")}
    tested = {row["key"]: row["labels"][0] for row in rows if row["split"] == "test"}
    assert len(tested) == 1312
    assert tested == delivered
    assert Counter(row["split"] for row in rows) == {"train": 5137, "val": 571, "test": 1312}
