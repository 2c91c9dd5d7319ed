"""A plan's fingerprint covers all that the shards hold; keys are unique, and no tar reader splits them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from messy import encoded, image_of
from PIL import Image
from small_shards import SETTINGS, plan_of, rows_of, written

from pipeline.data.datasets.isic import DATASET as ISIC
from pipeline.data.layouts import UserDataset
from pipeline.data.records import Dataset, Listing, Record
from pipeline.data.shards.transcode import ShardSettings


def other_label(raw: Path) -> None:
    path = next(iter((raw / "naevus").iterdir()))
    path.rename(raw / "melanoma" / path.name)


def other_pixels(raw: Path) -> None:
    path = raw / "naevus" / "002.png"
    image = Image.open(path).copy()
    image.putpixel((0, 0), (1, 2, 3))
    image.save(path)


def one_less(raw: Path) -> None:
    (raw / "unlabelled" / "060.png").unlink()


@pytest.mark.usefixtures("inline")
@pytest.mark.parametrize("change", [other_label, other_pixels, one_less])
def test_other_contents_are_another_dataset(raw: Path, change: Callable[[Path], None]) -> None:
    before = plan_of(raw)
    assert plan_of(raw).fingerprint == before.fingerprint
    change(raw)
    after = plan_of(raw)
    assert after.fingerprint != before.fingerprint
    assert after.folder_name != before.folder_name


@pytest.mark.usefixtures("inline")
def test_other_settings_are_another_dataset(raw: Path) -> None:
    other = [
        {"size": 17},
        {"split": "grouped"},
        {"format": "png"},
        {"format": "webp"},
        {"quality": 90},
        {"keep_names": True},
    ]
    every = [SETTINGS, *(ShardSettings(**{**SETTINGS.__dict__, **change}) for change in other)]  # type: ignore[arg-type]
    found = {plan_of(raw, settings=settings).fingerprint for settings in every}
    assert len(found) == len(every)


@pytest.mark.usefixtures("inline")
def test_another_dataset_of_the_same_files_is_another_dataset(raw: Path) -> None:
    assert plan_of(raw, dataset=UserDataset("yours", "folder")).fingerprint != plan_of(raw).fingerprint


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"size": 4}, "--size is 4; give a side between 8 and 4096 pixels"),
        ({"size": 5000}, "--size is 5000"),
        ({"quality": 0}, "--quality is 0; give a number from 1 to 100"),
        ({"quality": 101}, "--quality is 101"),
        ({"format": "png", "quality": 90}, "--quality does not go with --format png"),
    ],
)
def test_settings_that_make_no_sense_are_an_error(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ShardSettings(**{**SETTINGS.__dict__, **change})


@pytest.mark.usefixtures("inline")
def test_kept_names_are_unique_and_no_reader_splits_them(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    names = ["a/b.c.png", "a/b_c.png", "a/b c.png", "病人.png", "患者.png", "_x.png", "a/" + "long" * 40 + ".png"]
    for name in names:
        (tmp_path / "raw" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "raw" / name).write_bytes(encoded(image_of("naevus", rng), "PNG"))
    (tmp_path / "raw" / "b").mkdir()
    (tmp_path / "raw" / "b" / "1.png").write_bytes(encoded(image_of("naevus", rng), "PNG"))
    named = ShardSettings(**{**SETTINGS.__dict__, "keep_names": True})
    shards = written(plan_of(tmp_path / "raw", settings=named), tmp_path)
    keys = [row["key"] for row in rows_of(shards)]
    assert len(set(keys)) == len(names) + 1
    assert {"a_b_c", "x", "b_1", "a_" + "long" * 40} <= set(keys)
    assert all("." not in key and "/" not in key for key in keys)


@pytest.mark.usefixtures("inline")
def test_published_ids_are_the_keys_with_and_without_keep_names(tmp_path: Path) -> None:
    images = tmp_path / "raw" / "ISIC_2019_Training_Input"
    images.mkdir(parents=True)
    header = ["image", *ISIC.classes, "UNK"]
    rows, rng = [header], np.random.default_rng(0)
    for number in range(12):
        (images / f"ISIC_{number}.jpg").write_bytes(encoded(image_of("naevus", rng), "JPEG"))
        rows.append([f"ISIC_{number}", *("1.0" if place == number % 8 else "0.0" for place in range(9))])
    for table, lines in (
        ("GroundTruth", rows),
        ("Metadata", [["image", "lesion_id"], *([f"ISIC_{n}", f"HAM_{n // 2}"] for n in range(12))]),
    ):
        text = "\n".join(",".join(line) for line in lines) + "\n"
        (tmp_path / "raw" / f"ISIC_2019_Training_{table}.csv").write_text(text)
    for keep_names in (False, True):
        settings = ShardSettings(**{**SETTINGS.__dict__, "keep_names": keep_names})
        shards = written(plan_of(tmp_path / "raw", dataset=ISIC, settings=settings), tmp_path)
        assert {row["key"]: row["group"] for row in rows_of(shards)} == {
            f"ISIC_{n}": f"HAM_{n // 2}" for n in range(12)
        }


@pytest.mark.usefixtures("inline")
def test_what_is_no_file_is_quarantined_with_what_it_is(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name in ("1.png", "2.png"):
        (tmp_path / name).write_bytes(encoded(image_of("naevus", rng), "PNG"))
    (tmp_path / "folder.png").mkdir()
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "link.png").symlink_to("nowhere.png")
    (tmp_path / "loop.png").symlink_to("loop.png")
    names = ["folder.png", "pipe.png", "link.png", "loop.png", "gone.png", "1.png/x.png", "n\0.png", "z" * 300 + ".png"]
    rows = ["1.png,a", "2.png,b", *(f"{name},a" for name in names), ",a"]
    (tmp_path / "labels.csv").write_text("image,label\n" + "\n".join(rows) + "\n")
    plan = plan_of(tmp_path, dataset=UserDataset("mine", "csv"))
    assert len(plan.samples) == 2
    assert {entry["file"]: entry["reason"] for entry in plan.quarantined} == {
        "folder.png": "is a folder",
        "pipe.png": "is no file: a pipe, a socket or a device",
        "link.png": "is a link to a file that is not there: nowhere.png",
        "loop.png": "is a link to a file that is not there: loop.png",
        "gone.png": "no such file",
        "1.png/x.png": "no such file",
        r"n\x00.png": "its path holds a NUL byte",
        "z" * 300 + ".png": "cannot be read: File name too long",
        "labels.csv": "line 12: it has no path",
    }


@pytest.mark.usefixtures("inline")
def test_names_that_are_no_utf_8_have_keys_like_others(raw: Path, tmp_path: Path) -> None:
    (raw / "naevus" / "002.png").rename(raw / "naevus" / os.fsdecode(b"caf\xe9.png"))
    (raw / "melanoma").rename(raw / os.fsdecode(b"m\xe9lanome"))
    shards = written(plan_of(raw), tmp_path)
    assert len(rows_of(shards)) == 66 and r"m\xe9lanome" in shards.classes
    assert shards.labels(range(66)).count((r"m\xe9lanome",)) == 20
    named = ShardSettings(**{**SETTINGS.__dict__, "keep_names": True})
    assert "naevus_caf" in {row["key"] for row in rows_of(written(plan_of(raw, settings=named), tmp_path))}


@pytest.mark.usefixtures("inline")
def test_a_split_that_leaves_nothing_in_train_is_an_error(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for number in range(6):
        (tmp_path / f"{number}.png").write_bytes(encoded(image_of("naevus", rng), "PNG"))
    rows = [f"{number}.png,{'ab'[number % 2]},{('val', 'test')[number // 3]}" for number in range(6)]
    (tmp_path / "labels.csv").write_text("image,label,split\n" + "\n".join(rows) + "\n")
    with pytest.raises(ValueError, match=r"mine: no image is in train \(3 in val, 3 in test\)|\(3 in test, 3 in val\)"):
        plan_of(tmp_path, dataset=UserDataset("mine", "csv"))


class Odd(Dataset):
    """A dataset with ids that tar readers would split."""

    name, classes, task, metric, label_fractions, obtain = "odd", ("a", "b"), "multi-class", "", (1.0,), "."

    def listing(self, root: Path) -> Listing:
        paths = sorted(root.rglob("*.png"))
        keys = ["x.y", "a/b", "", "_x", "fine-1_A"]
        records = [Record(key=key, path=path, labels=("a",)) for key, path in zip(keys, paths, strict=False)]
        return Listing(classes=self.classes, task=self.task, records=records)


@pytest.mark.usefixtures("inline")
def test_ids_that_readers_would_split_are_quarantined(raw: Path) -> None:
    plan = plan_of(raw, dataset=Odd())
    reasons = [entry["reason"] for entry in plan.quarantined]
    assert [reason for reason in reasons if "'x.y'" in reason or "'a/b'" in reason or "'_x'" in reason] == reasons
    assert len(reasons) == 3  # an empty id counts as none: the key is a hash
    assert "fine-1_A" in {sample.key for sample in plan.samples}
