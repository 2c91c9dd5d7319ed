"""What a person is told: found = written + quarantined + passed over, and nothing unknown is called 0."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from messy import encoded, image_of
from small_shards import SETTINGS, plan_of, written

from pipeline.core import files, seals
from pipeline.data.layouts import UserDataset
from pipeline.data.layouts.options import Options
from pipeline.data.shards import summary
from pipeline.data.shards.index import open_shards
from pipeline.data.shards.transcode import ShardSettings

GROUPED = ShardSettings(**{**SETTINGS.__dict__, "split": "grouped"})


def draw(root: Path, *names: str) -> None:
    rng = np.random.default_rng(0)
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(encoded(image_of("naevus", rng), "PNG"))


@pytest.fixture
def odd(tmp_path: Path) -> Path:
    """Twenty images, among them broken ones, and names that could drive a terminal."""
    raw = tmp_path / "odd"
    draw(raw, *(f"{'ab'[n % 2]}/{n}.png" for n in range(16)), os.fsdecode(b"a/caf\xe9.png"), "b/two\nlines.png")
    (raw / "a" / "red\x1b[31m.png").write_bytes(b"no image")
    (raw / "b" / "gone\x1b[2J.png").symlink_to("no\nwhere")
    (raw / "b" / "scan\n.nii.gz").write_bytes(b"x")
    (raw / "b" / ".hidden").write_bytes(b"x")
    return raw


@pytest.mark.usefixtures("inline")
def test_everything_found_is_counted_once_and_shown_escaped(odd: Path, tmp_path: Path) -> None:
    plan = plan_of(odd)
    planned = summary.of_plan(plan)
    assert "22 found: 19 written, 1 quarantined, 2 passed over" in planned
    assert r"b/gone\x1b[2J.png  is a link to a file that is not there: no\nwhere" in planned
    shards = written(plan, tmp_path, max_bad=0.2)
    text = summary.of_shards(shards, plan)
    assert "22 found: 18 written, 2 quarantined, 2 passed over" in text
    assert r"a/red\x1b[31m.png  is no image format known here" in text
    assert r".nii.gz" in text and r"b/scan\n.nii.gz" in text
    assert all(line.isprintable() for line in (planned + text).split("\n"))
    again = open_shards(shards.folder)
    assert again.manifest["passed_over"] == {".nii.gz": 1, "hidden": 1}
    assert r"b/scan\n" not in (shards.folder / "manifest.json").read_text()  # such names can be patients'
    assert summary.of_shards(again, plan) == text

    account = summary.account(plan, shards.manifest["quarantined"])
    assert len(account) == 22 and all(line.replace("\t", "").isprintable() for line in account)
    assert sum(line.startswith("written\t") for line in account) == 18
    assert "passed over\thidden\tb/.hidden" in account and r"a/caf\xe9.png" in "\n".join(account)


@pytest.mark.usefixtures("inline")
def test_a_repeated_row_is_quarantined_and_its_file_is_written(tmp_path: Path) -> None:
    draw(tmp_path / "raw", "1.png", "2.png")
    (tmp_path / "raw" / "labels.csv").write_text("image,label\n1.png,a\n1.png,a\n2.png,b\n")
    plan = plan_of(tmp_path / "raw", dataset=UserDataset("mine", "csv"))
    account = summary.account(plan, plan.quarantined)
    assert "quarantined\tduplicate path: the same row again\t1.png" in account
    assert sum(line.endswith("\t1.png") and line.startswith("written") for line in account) == 1


@pytest.mark.usefixtures("inline")
def test_unknown_groups_are_said_as_unknown_and_never_as_0(raw: Path, tmp_path: Path) -> None:
    plan = plan_of(raw)
    unknown = "no lesion or patient is known: whether test images share one with training images cannot be said"
    assert unknown in summary.of_plan(plan) and "0 test images" not in summary.of_plan(plan)
    grouped = plan_of(raw, settings=GROUPED)
    assert f"{unknown}; --split grouped therefore keeps near duplicates together and nothing else" in summary.of_plan(
        grouped
    )
    shards = written(plan, tmp_path)
    assert shards.manifest["test_sharing_group_with_train"] is None and shards.manifest["groups"] == 0
    assert unknown in summary.of_shards(shards, plan)

    known = plan_of(raw, dataset=UserDataset("mine", "folder", Options(group_from=r"naevus/\d")))
    text = summary.of_plan(known)
    assert "test images share a lesion or patient with a training image (it is not known for 46 images)" in text


@pytest.mark.usefixtures("inline")
def test_shards_of_an_earlier_version_say_the_same_of_groups(raw: Path, tmp_path: Path) -> None:
    plan = plan_of(raw)
    shards = written(plan, tmp_path)
    old = {
        name: value
        for name, value in shards.manifest.items()
        if name not in ("groups", "without_group", "notes", *seals.seals_of(shards.manifest))
    }
    del old["passed_over"]
    old["test_sharing_group_with_train"] = 0
    old["counts"] = {
        split: {"pictures": each["images"], "unlabelled": each["unlabelled"], **each["classes"]}
        for split, each in old["counts"].items()
    }
    files.write_json(shards.folder / "manifest.json", old)
    assert summary.of_shards(open_shards(shards.folder), plan) == summary.of_shards(shards, plan)


@pytest.mark.usefixtures("inline")
def test_a_class_may_have_the_name_of_a_total(tmp_path: Path) -> None:
    names = [f"{number}.png" for number in range(20)]
    draw(tmp_path / "raw", *names)
    rows = [f"{name},{('images', 'unlabelled')[number % 2]}" for number, name in enumerate(names)]
    (tmp_path / "raw" / "labels.csv").write_text("image,label\n" + "\n".join(rows) + "\n")
    plan = plan_of(tmp_path / "raw", dataset=UserDataset("mine", "csv"))
    lines = [line.split() for line in summary.of_plan(plan).splitlines()]
    assert ["'images'", "8", "1", "1"] in lines and ["images", "16", "2", "2"] in lines
    assert ["'unlabelled'", "8", "1", "1"] in lines and ["unlabelled", "0", "0", "0"] in lines
