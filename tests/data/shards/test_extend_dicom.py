"""Datasets of DICOM that grow: a patient of test stays there, whatever the files that come with the new ones."""

from __future__ import annotations

import shutil
from pathlib import Path

import hospital
import pytest
from small_shards import rows_of, written

from pipeline.core.console import silent
from pipeline.data.formats.reading import Reading
from pipeline.data.layouts import UserDataset
from pipeline.data.layouts.options import Options
from pipeline.data.shards.extend import extended_plan, settings_of
from pipeline.data.shards.index import Shards
from pipeline.data.shards.plan import ShardPlan, make_plan
from pipeline.data.shards.transcode import AUTO, ShardSettings

pytestmark = pytest.mark.usefixtures("inline")
KEY = b"a key of the hospital"
SETTINGS = ShardSettings(
    size=16, split=AUTO, format="png", quality=None, keep_names=False, reading=Reading(window="-600,1500")
)


def mine(raw: Path) -> UserDataset:
    """With a table of labels next to the raw folder."""
    table = raw.parent / "labels.csv"
    table.write_text("patient_id,label\n" + "".join(f"PAT{n},{'ab'[n % 2]}\n" for n in range(11)))
    return UserDataset("mine", "dicom", Options(labels=table))


def sharded(raw: Path, out: Path, key: bytes | None) -> tuple[Shards, str]:
    """The shards of ten patients, and the number of a patient in test."""
    plan = make_plan(mine(raw), raw, SETTINGS, workers=1, progress=silent, id_key=key)
    held_out = next(sample for sample in plan.samples if sample.split == "test")
    return written(plan, out), held_out.record.path.name.partition("-")[0]


def grown(raw: Path, old: Shards, key: bytes | None = None) -> ShardPlan:
    return extended_plan(mine(raw), raw, old, workers=1, progress=silent, id_key=key)


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Ten patients with two slices each; and alone a third slice of each, and those of an eleventh."""
    every = hospital.slices(tmp_path / "every", patients=11, each=3)
    few, alone = tmp_path / "few", tmp_path / "alone"
    for path in every.iterdir():
        patient, _, number = path.stem.partition("-")
        target = alone if number == "2" or patient == "10" else few
        target.mkdir(exist_ok=True)
        shutil.move(path, target / path.name)
    return few, alone


def check(plan: ShardPlan, old: Shards, held_out: str, out: Path) -> Shards:
    names = {sample.record.path.name for sample in plan.samples}
    assert {f"10-{number}.dcm" for number in range(3)} <= names and f"{held_out}-2.dcm" not in names
    kinds = {passed.kind for passed in plan.listing.passed_over}
    assert "new images of a lesion or patient in test" in kinds
    new = written(plan, out)
    assert rows_of(new)[:20] == rows_of(old)
    assert new.manifest["test_sharing_group_with_train"] == 0
    assert new.manifest["settings"] == old.manifest["settings"] and settings_of(new) == settings_of(old)
    assert sum(new.manifest["kinds"]["CT"].values()) == len(rows_of(new)) == 20 + len(names)
    assert new.manifest["kinds"]["CT"]["test"] == old.manifest["kinds"]["CT"]["test"]
    return new


def test_with_the_same_key_new_files_may_come_alone(folders: tuple[Path, Path], tmp_path: Path) -> None:
    few, alone = folders
    old, held_out = sharded(few, tmp_path / "out", KEY)
    for wrong in (None, b"another key of 20 bytes"):
        with pytest.raises(ValueError, match="was sharded with --id-key, and (no|another) key was given"):
            grown(alone, old, wrong)
    plan = grown(alone, old, KEY)
    new = check(plan, old, held_out, tmp_path / "out")
    of_train = {row["group"] for row in rows_of(old) if row["split"] == "train"}
    assert sum(row["group"] in of_train for row in rows_of(new)[20:]) == len(of_train), "patients keep their names"
    shutil.copytree(few, tmp_path / "both")
    shutil.copytree(alone, tmp_path / "both", dirs_exist_ok=True)
    assert grown(tmp_path / "both", old, KEY).fingerprint == plan.fingerprint
    assert KEY.decode() not in (new.folder / "manifest.json").read_text()


def test_without_a_key_the_files_that_are_stored_tell_the_patients(folders: tuple[Path, Path], tmp_path: Path) -> None:
    few, alone = folders
    old, held_out = sharded(few, tmp_path / "out", None)
    with pytest.raises(ValueError, match="so its patients are known by its files alone, and 20 images"):
        grown(alone, old)
    with pytest.raises(ValueError, match="was sharded without --id-key; omit it"):
        grown(alone, old, KEY)
    shutil.copytree(alone, few, dirs_exist_ok=True)
    new = check(grown(few, old), old, held_out, tmp_path / "out")
    assert grown(few, new).samples == []
