"""Datasets of DICOM that grow: a patient of test stays there, whatever the files that come with the new ones."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import hospital
import numpy as np
import pyarrow.parquet as parquet
import pydicom
import pytest
from small_shards import rows_of, written

from pipeline.core.console import silent
from pipeline.data.formats.reading import Reading, Secret
from pipeline.data.layouts import UserDataset
from pipeline.data.layouts.options import Options
from pipeline.data.shards.extend import extended_plan, settings_of
from pipeline.data.shards.index import Shards
from pipeline.data.shards.parent import SOURCES
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


def test_a_name_of_a_file_is_hidden_where_the_shards_that_grow_are_of_dicom(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    few, alone = folders
    old, _ = sharded(few, tmp_path / "out", KEY)
    cut = alone / "0-2.dcm"
    (alone / "Doe_John_1970.dcm").write_bytes(cut.read_bytes()[:200])
    for path in alone.glob("[0-9]*.dcm"):
        path.unlink()
    for layout in ("dicom", "folder"):
        dataset = UserDataset("mine", layout)
        plan = extended_plan(dataset, alone, old, workers=1, progress=silent, id_key=KEY)
        assert plan.hides_names and [entry["file"] for entry in plan.quarantined] == ["unread file 1"]


def mr(path: Path, number: int, *, patient: str = "PAT0", study: int = 1) -> None:
    """A slice of a series without a window; each is brighter than those before."""
    values = np.random.default_rng([study, number]).uniform(0, 100, (16, 16)) * 3**number
    ds = hospital.header("MR", patient=patient, study=study, number=number)
    hospital.save(hospital.with_pixels(ds, values.astype(np.uint16)), path)


MR = replace(SETTINGS, split="image", reading=Reading())


@pytest.mark.parametrize("key", [None, KEY])
def test_a_new_slice_gets_the_window_that_its_series_has(key: bytes | None, tmp_path: Path) -> None:
    """Without a key the stored slice comes with the new one; with a key the new one comes alone."""
    for patient in range(10):
        mr(tmp_path / "raw" / f"{patient}", 1, patient=f"PAT{patient}", study=patient + 1)
    old = written(
        make_plan(mine(tmp_path / "raw"), tmp_path / "raw", MR, workers=1, progress=silent, id_key=key), tmp_path
    )
    ends = {row["key"]: row["ends"] for row in parquet.read_table(old.folder / SOURCES).to_pylist()}
    new = tmp_path / "new"
    shutil.copytree(tmp_path / "raw", new)
    if key:
        shutil.rmtree(new)
    mr(new / "later", 2)
    (sample,) = grown(new, old, key).samples
    first = next(row for row in rows_of(old) if row["key"] == _key_of(tmp_path / "raw" / "0", key))
    assert json.dumps(sample.source.ends) == ends[first["key"]] and sample.source.ends[1] < 350


def _key_of(path: Path, key: bytes | None) -> str:
    secret = Secret(key or b"", key is not None)
    return secret.lasting_hash("sop", str(pydicom.dcmread(path).SOPInstanceUID))


def test_slices_of_a_new_series_that_come_in_parts_are_another_dataset_than_at_once(tmp_path: Path) -> None:
    """The first alone has another window than both together."""
    raw = tmp_path / "raw"
    for patient in range(1, 10):
        mr(raw / f"{patient}", 1, patient=f"PAT{patient}", study=patient + 1)
    old = written(make_plan(mine(raw), raw, MR, workers=1, progress=silent), tmp_path)
    mr(raw / "f1", 1)
    one = written(grown(raw, old), tmp_path)
    mr(raw / "f2", 2)
    in_parts, at_once = grown(raw, one), grown(raw, old)
    assert len(in_parts.samples) == 1 and len(at_once.samples) == 2
    assert in_parts.fingerprint != at_once.fingerprint
    two = written(in_parts, tmp_path)
    kept = {row["key"]: row["ends"] for row in parquet.read_table(two.folder / SOURCES).to_pylist()}
    assert kept[_key_of(raw / "f1", None)] == kept[_key_of(raw / "f2", None)]


def test_with_a_key_a_file_without_a_patient_is_known_by_its_study_or_needs_the_stored_ones(tmp_path: Path) -> None:
    raw, new = tmp_path / "raw", tmp_path / "new"
    for patient in range(10):
        mr(raw / f"{patient}", 1, patient=f"PAT{patient}", study=patient + 1)
    plan = make_plan(mine(raw), raw, replace(MR, split="grouped"), workers=1, progress=silent, id_key=KEY)
    held_out = next(sample for sample in plan.samples if sample.split == "test")
    study = int(held_out.record.path.name) + 1
    old = written(plan, tmp_path)
    mr(new / "later", 2, patient="", study=study)
    with pytest.raises(ValueError, match="grow by images whose headers name no patient"):
        grown(new, old, KEY)
    shutil.copytree(raw, new, dirs_exist_ok=True)
    grown_plan = grown(new, old, KEY)
    assert grown_plan.samples == []
    assert "new images of a lesion or patient in test" in {passed.kind for passed in grown_plan.listing.passed_over}
