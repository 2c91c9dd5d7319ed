"""Shards that grow keep their images, tars, splits and held-out parts, whatever the parts in which images come."""

from __future__ import annotations

import os
import random
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as parquet
import pytest
from messy import CLASSES, encoded, image_of
from PIL import Image
from small_shards import SETTINGS, contents, plan_of, rows_of, written

from pipeline.core import files
from pipeline.core.console import silent
from pipeline.data.layouts import UserDataset
from pipeline.data.records import Dataset, Listing, Record
from pipeline.data.shards import summary, write
from pipeline.data.shards.extend import extended_plan
from pipeline.data.shards.index import Shards, open_shards
from pipeline.data.shards.parent import SOURCES
from pipeline.data.shards.plan import ShardPlan

pytestmark = pytest.mark.usefixtures("inline", "small_tars")
GROUPED = replace(SETTINGS, split="grouped", size=32)


def grown(raw: Path, old: Shards, dataset: Dataset | None = None) -> ShardPlan:
    return extended_plan(dataset or UserDataset("mine", "folder"), raw, old, workers=1, progress=silent)


def add_images(raw: Path, numbers: Sequence[int]) -> None:
    for number in numbers:
        data = encoded(image_of(CLASSES[number % 3], np.random.default_rng(100 + number)), "PNG")
        (raw / CLASSES[number % 3] / f"new_{number}.png").write_bytes(data)


def splits_of(shards: Shards) -> dict[str, str]:
    return {row["key"]: row["split"] for row in rows_of(shards)}


def test_stored_images_keep_their_tars_splits_and_places_and_are_not_decoded(
    raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = written(plan_of(raw), tmp_path / "out")
    add_images(raw, range(12))
    decoded: list[Path] = []
    transcode = write.transcode
    monkeypatch.setattr(write, "transcode", lambda task, **how: decoded.append(task[0].path) or transcode(task, **how))
    plan = grown(raw, old)
    new = written(plan, tmp_path / "out")
    assert sorted(path.stem for path in decoded) == sorted(f"new_{number}" for number in range(12))
    assert rows_of(new)[:66] == rows_of(old)
    assert {row["split"] for row in rows_of(new)[66:]} == {"train"}
    assert new.folder != old.folder and new.fingerprint != old.fingerprint
    for tar in old.folder.glob("*.tar"):
        assert (new.folder / tar.name).stat().st_ino == tar.stat().st_ino
    assert len(list(new.folder.glob("*.tar"))) == len(list(old.folder.glob("*.tar"))) + 2
    assert new.manifest["extends"] == {
        "parent": old.fingerprint,
        "images": 66,
        "base": old.fingerprint,
        "base_images": 66,
    }
    assert new.manifest["counts"]["train"]["images"] == old.manifest["counts"]["train"]["images"] + 12
    assert "78 found: 12 written, 0 quarantined, 0 passed over, 66 stored already" in summary.of_shards(new, plan)
    sources = parquet.read_table(new.folder / SOURCES).to_pylist()
    of_files = {files.sha256_file(path) for path in raw.rglob("*.png")}
    assert {row["sha256"] for row in sources} == of_files
    assert [row["key"] for row in sources] == [row["key"] for row in rows_of(new)]


def test_in_parts_or_at_once_it_is_the_same_dataset_in_the_same_order(raw: Path, tmp_path: Path) -> None:
    old = written(plan_of(raw), tmp_path / "out")
    more = Path(shutil.copytree(raw, tmp_path / "more"))
    add_images(raw, range(12))
    once = written(grown(raw, old), tmp_path / "once")
    add_images(more, [3, 8, 11])
    first = written(grown(more, old), tmp_path / "parts")
    add_images(more, range(12))
    parts = written(grown(more, first), tmp_path / "parts")
    assert first.fingerprint != parts.fingerprint == once.fingerprint
    assert parts.manifest["extends"]["parent"] == first.fingerprint
    assert parts.manifest["extends"]["base"] == once.manifest["extends"]["base"] == old.fingerprint
    apart = ("tar", "offset")
    told = [[{k: v for k, v in row.items() if k not in apart} for row in rows_of(each)] for each in (parts, once)]
    assert told[0] == told[1]
    where = {row["key"]: (row["tar"], row["offset"]) for row in rows_of(parts)}
    assert all(where[row["key"]] == (row["tar"], row["offset"]) for row in rows_of(first))


def test_new_images_may_lie_in_a_folder_of_their_own(raw: Path, tmp_path: Path) -> None:
    old = written(plan_of(raw), tmp_path / "out")
    whole = Path(shutil.copytree(raw, tmp_path / "whole"))
    add_images(whole, range(6))
    alone = tmp_path / "alone"
    for name in CLASSES:
        (alone / name).mkdir(parents=True)
    add_images(alone, range(6))
    one, other = grown(whole, old), grown(alone, old)
    assert one.fingerprint == other.fingerprint
    assert "66 images of it are not in the raw folder" in other.listing.notes
    assert written(other, tmp_path / "out").manifest["source_sha256"] == one.source_sha256


def test_nothing_new_is_nothing_to_do(raw: Path, tmp_path: Path) -> None:
    old = written(plan_of(raw), tmp_path)
    plan = grown(raw, old)
    assert plan.samples == [] and plan.fingerprint == old.fingerprint


def test_after_a_kill_the_same_bytes_and_on_another_disk_too(
    raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = written(plan_of(raw), tmp_path / "out")
    add_images(raw, range(25))
    whole = written(grown(raw, old), tmp_path / "whole")

    def full(*_: object, **__: object) -> None:
        raise OSError("another disk")

    with monkeypatch.context() as patched:
        patched.setattr(os, "link", full)
        patched.setattr(write, "write_index", full)
        with pytest.raises(OSError, match="another disk"):
            written(grown(raw, old), tmp_path / "killed")
    killed = written(grown(raw, old), tmp_path / "killed")
    assert contents(killed.folder) == contents(whole.folder)


class Patients(Dataset):
    """Images with patients, whose names are to be hashed."""

    name, classes, task, metric, label_fractions, obtain = "mine", CLASSES, "multi-class", "accuracy", (1.0,), ""

    def listing(self, root: Path) -> Listing:
        records = [
            Record(key=None, path=path, labels=(path.parent.name,), group=path.stem.partition("_")[0])
            for path in sorted(root.rglob("*.png"))
            if path.parent.name in CLASSES
        ]
        return Listing(classes=self.classes, task=self.task, records=records)


def noise(seed: int) -> np.ndarray:
    return np.kron(np.random.default_rng(seed).integers(0, 255, (16, 16)), np.ones((3, 3))).astype(np.uint8)


def put(root: Path, patient: str, number: int, pixels: np.ndarray) -> Path:
    path = root / CLASSES[number % 3] / f"{patient}_{number}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encoded(Image.fromarray(pixels).convert("RGB"), "PNG"))
    return path


@pytest.fixture
def clinic(tmp_path: Path) -> tuple[Path, Shards, dict[str, str]]:
    """Ten patients with four images each, their shards, and the part of each patient."""
    raw = tmp_path / "clinic"
    for number in range(40):
        put(raw, f"p{number % 10}", number, noise(number))
    plan = plan_of(raw, settings=GROUPED, dataset=Patients())
    parts = {sample.record.path.stem.partition("_")[0]: sample.split for sample in plan.samples}
    return raw, written(plan, tmp_path / "out"), parts


def test_test_and_val_never_grow_and_training_gets_no_patient_or_twin_of_theirs(
    clinic: tuple[Path, Shards, dict[str, str]], tmp_path: Path
) -> None:
    raw, old, parts = clinic
    of = {part: next(p for p, each in parts.items() if each == part) for part in ("train", "val", "test")}
    by_part = {part: int(next(raw.rglob(f"{of[part]}_*.png")).stem.partition("_")[2]) for part in of}
    put(raw, of["test"], 100, noise(100))
    put(raw, of["val"], 101, noise(101))
    kept = put(raw, of["train"], 102, noise(102))
    twin = noise(by_part["test"])
    put(raw, "new", 103, (twin * 0.8 + 10).astype(np.uint8))
    alone = put(raw, "new", 104, noise(104))
    plan = grown(raw, old, Patients())
    assert {sample.record.path for sample in plan.samples} == {kept, alone}
    kinds = Counter(passed.kind for passed in plan.listing.passed_over)
    assert kinds == {
        "new images of a lesion or patient in test": 1,
        "new images of a lesion or patient in val": 1,
        "new images with a twin in test": 1,
    }
    new = written(plan, tmp_path / "out")
    held = [[row for row in rows_of(each) if row["split"] != "train"] for each in (old, new)]
    assert held[0] == held[1]
    group = {row["group"] for row in rows_of(old) if row["split"] == "train"}
    assert sum(row["group"] in group for row in rows_of(new)[40:]) == 1, "a patient of training keeps his name"
    assert new.manifest["test_sharing_group_with_train"] == 0
    assert new.manifest["twins"]["test"]["near"] == 0
    said = summary.of_shards(new, plan)
    assert f"{of['test']}_100.png" in said and "new_103.png" in said


@pytest.mark.parametrize("seed", range(3))
def test_any_order_of_additions_gives_the_same_members(
    clinic: tuple[Path, Shards, dict[str, str]], tmp_path: Path, seed: int
) -> None:
    """Twins of held-out images, twins of these and further patients of both: what is added depends on no other."""
    raw, old, parts = clinic
    every = Path(shutil.copytree(raw, tmp_path / "every"))
    held_out = next(patient for patient, part in parts.items() if part == "test")
    number = int(next(raw.rglob(f"{held_out}_*.png")).stem.partition("_")[2])
    twin = noise(number).astype(int)
    added = [
        ("bridge", (twin * 0.9 + 5).astype(np.uint8)),  # a twin of test, of a patient
        ("bridge", noise(200)),  # the same patient, no twin
        *((f"q{n % 3}", noise(300 + n)) for n in range(6)),
        (held_out, noise(400)),
    ]
    numbers = list(range(len(added)))
    for n in numbers:
        put(every, added[n][0], 1000 + n, added[n][1])
    once = written(grown(every, old, Patients()), tmp_path / "once")
    random.Random(seed).shuffle(numbers)
    shards = old
    for part in (numbers[:4], numbers[4:]):
        for n in part:
            put(raw, added[n][0], 1000 + n, added[n][1])
        shards = written(grown(raw, shards, Patients()), tmp_path / "parts")
    assert splits_of(shards) == splits_of(once)
    assert shards.fingerprint == once.fingerprint
    assert len(splits_of(once)) == 40 + 7


class WithIds(Patients):
    """The same with published ids."""

    def listing(self, root: Path) -> Listing:
        found = super().listing(root)
        return replace(found, records=[replace(record, key=record.path.stem) for record in found.records])


def test_a_file_that_changed_under_its_id_is_quarantined_and_the_stored_one_stays(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    for number in range(30):
        put(raw, "p", number, noise(number))
    old = written(plan_of(raw, dataset=WithIds()), tmp_path / "out")
    put(raw, "p", 7, noise(500))
    put(raw, "p", 30, noise(30))
    plan = grown(raw, old, WithIds())
    [bad] = plan.quarantined
    assert bad["file"].endswith("p_7.png") and "is not the file that was sharded under its id" in bad["reason"]
    assert [sample.key for sample in plan.samples] == ["p_30"]
    new = written(plan, tmp_path / "out", max_bad=0.1)
    assert rows_of(new)[:30] == rows_of(old)


def test_what_does_not_go_with_the_shards_is_said(raw: Path, tmp_path: Path) -> None:
    old = written(plan_of(raw), tmp_path / "out")
    with pytest.raises(ValueError, match="holds mine, not other"):
        grown(raw, old, UserDataset("other", "folder"))
    (raw / "wart").mkdir()
    (raw / "wart" / "1.png").write_bytes(encoded(image_of(CLASSES[0], np.random.default_rng(9)), "PNG"))
    with pytest.raises(ValueError, match="has no class wart; its classes are"):
        grown(raw, old)
    (raw / "wart").rename(raw / "test")
    with pytest.raises(ValueError, match="next to test, which are the split"):
        grown(raw, old)


def test_new_images_that_somebody_puts_into_test_are_left_out(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    for split, count in (("train", 20), ("val", 4), ("test", 4)):
        for number in range(count):
            put(raw / split, "p", number, noise(len(split) * 100 + number))
    old = written(plan_of(raw), tmp_path / "out")
    put(raw / "test", "p", 50, noise(50))
    kept = put(raw / "train", "p", 51, noise(51))
    plan = grown(raw, old)
    assert [sample.record.path for sample in plan.samples] == [kept]
    [passed] = plan.listing.passed_over
    assert passed.kind == "new images that are given to test, which stays as it is"


def test_labels_that_changed_are_said_and_the_stored_ones_stay(raw: Path, tmp_path: Path) -> None:
    class Relabelled(WithIds):
        swapped: tuple[str, ...] = ()

        def listing(self, root: Path) -> Listing:
            found = super().listing(root)
            records = [replace(r, labels=(CLASSES[0],)) if r.key in self.swapped else r for r in found.records]
            return replace(found, records=records)

    old = written(plan_of(raw, dataset=Relabelled()), tmp_path / "out")
    Relabelled.swapped = ("001",)
    add_images(raw, [1])
    plan = grown(raw, old, Relabelled())
    assert any("1 stored image has other labels in the raw folder now" in note for note in plan.listing.notes)
    assert rows_of(written(plan, tmp_path / "out"))[:60] == rows_of(old)


def test_shards_of_earlier_code_grow_where_all_their_files_are_there(raw: Path, tmp_path: Path) -> None:
    old = written(plan_of(raw), tmp_path / "out")
    add_images(raw, range(3))
    fingerprint = grown(raw, old).fingerprint
    (old.folder / SOURCES).unlink()
    with pytest.raises(ValueError, match=f"{SOURCES} is missing"):
        grown(raw, old)
    manifest: dict[str, Any] = {k: v for k, v in old.manifest.items() if k not in ("files", "seal")}
    files.write_json(old.folder / "manifest.json", manifest)
    earlier = open_shards(old.folder)
    assert grown(raw, earlier).fingerprint == fingerprint
    next(raw.rglob("005.png")).unlink()
    with pytest.raises(ValueError, match="did not store the checksums of raw files, and 1 image of it are not in"):
        grown(raw, earlier)


def test_new_images_of_patients_whose_stored_images_are_not_there_to_tell_are_refused(
    clinic: tuple[Path, Shards, dict[str, str]], tmp_path: Path
) -> None:
    """Names of patients are not stored: new images alone may be of any of them."""
    raw, old, _ = clinic
    for number in range(20):
        put(tmp_path / "alone", f"p{number % 10}", 200 + number, noise(200 + number))
    with pytest.raises(ValueError, match="stores no names of patients or lesions.* 40 images of it are not in the raw"):
        grown(tmp_path / "alone", old, Patients())
    plan = plan_of(raw, settings=replace(GROUPED, keep_names=True), dataset=Patients())
    named = grown(tmp_path / "alone", written(plan, tmp_path / "named"), Patients())
    parts = {sample.record.group: sample.split for sample in plan.samples}
    assert {parts[sample.record.group] for sample in named.samples} == {"train"}
    assert len(named.samples) == 2 * sum(part == "train" for part in parts.values()) < 20
    without_patients = grown(tmp_path / "alone", old)
    assert len(without_patients.samples) == 20
