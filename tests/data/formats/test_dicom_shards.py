"""A hospital's folder to shards: patients stay together, labels come by ids, and the bytes are always the same."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path
from typing import Any

import hospital
import numpy as np
import pydicom
import pytest
import small_shards
from hospital import header, save, with_pixels
from small_shards import contents, rows_of, written

from pipeline.core.console import silent
from pipeline.data import images
from pipeline.data.formats.reading import Reading, Secret, Window
from pipeline.data.layouts import UserDataset
from pipeline.data.layouts.options import Options
from pipeline.data.shards import facts, headers, summary
from pipeline.data.shards import write as writing
from pipeline.data.shards.index import Shards
from pipeline.data.shards.plan import ShardPlan, make_plan
from pipeline.data.shards.transcode import AUTO, ShardSettings


def plan_of(raw: Path, *, labels: Path | None = None, key: bytes | None = None, **more: Any) -> ShardPlan:
    reading = Reading(**{name: more.pop(name) for name in ("frames", "window") if name in more})
    options = Options(labels=labels, **{name: more.pop(name) for name in ("group_column",) if name in more})
    settings = ShardSettings(
        **{"size": 16, "split": AUTO, "format": "png", "quality": None, "keep_names": False} | more, reading=reading
    )
    dataset = UserDataset("mine", "dicom", options)
    return make_plan(dataset, raw, settings, workers=1, progress=silent, id_key=key)


def table(path: Path, column: str, rows: dict[str, str], **more: list[str]) -> Path:
    names = [column, "label", *more]
    cells = [[id, label, *(values[n] for values in more.values())] for n, (id, label) in enumerate(rows.items())]
    path.write_text("\n".join(",".join(row) for row in [names, *cells]) + "\n")
    return path


@pytest.mark.usefixtures("inline")
def test_images_of_a_patient_stay_in_one_split_and_the_table_counts_patients_by_split(tmp_path: Path) -> None:
    raw = hospital.slices(tmp_path / "raw", patients=20, each=3)
    labels = table(tmp_path / "labels.csv", "PatientID", {f"PAT{n}": "ab"[n % 2] for n in range(20)})
    plan = plan_of(raw, labels=labels)
    assert plan.settings.split == "grouped" and len(plan.samples) == 60
    by_file = {sample.record.path.name: sample for sample in plan.samples}
    splits = set()
    for patient in range(20):
        of = [by_file[f"{patient}-{number}.dcm"] for number in range(3)]
        assert len({sample.group for sample in of}) == len({sample.split for sample in of}) == 1
        assert {sample.record.labels for sample in of} == {("ab"[patient % 2],)}
        splits.add(of[0].split)
    assert splits == {"train", "val", "test"} and len({sample.group for sample in plan.samples}) == 20
    shards = written(plan, tmp_path / "out")
    text = summary.of_shards(shards, plan)
    lines = [line.split() for line in text.splitlines()]
    assert ["CT", "48", "6", "6"] in lines
    assert ["patients,", "or", "files", "of", "several", "images", "16", "2", "2"] in lines
    assert "60 images: CT in the window 40,400 (Hounsfield units), the default" in text
    assert shards.manifest["kinds"] == {"CT": {"train": 48, "val": 6, "test": 6}}
    said = facts.lines(shards)
    assert "images by header (train / val / test): CT 48 / 6 / 6" in said
    assert "patients, or files of several images (train / val / test): 16 / 2 / 2" in said
    assert "how they were read: 60 images: CT in the window 40,400 (Hounsfield units), the default" in said
    assert shards.manifest["groups_by_split"] == {"train": 16, "val": 2, "test": 2}


@pytest.mark.usefixtures("inline")
def test_the_same_files_give_the_same_folder_with_or_without_their_names_and_a_window_another(tmp_path: Path) -> None:
    raw = hospital.slices(tmp_path / "raw")
    one = plan_of(raw)
    assert plan_of(raw).fingerprint == one.fingerprint  # though ids are hashed with another key each time
    shutil.copytree(raw, tmp_path / "moved" / "Doe^Jane")
    assert plan_of(tmp_path / "moved").fingerprint == one.fingerprint
    others = [plan_of(raw, window="-600,1500"), plan_of(raw, key=b"k" * 20)]
    assert len({one.fingerprint, *(other.fingerprint for other in others)}) == 3


@pytest.mark.usefixtures("inline")
def test_with_a_key_the_same_patient_has_the_same_group_in_another_folder(tmp_path: Path) -> None:
    few, more = (hospital.slices(tmp_path / name, patients=2, each=each) for name, each in (("few", 2), ("more", 3)))

    def groups(plan: ShardPlan) -> set[str | None]:
        return {sample.group for sample in plan.samples}

    assert groups(plan_of(few)) != groups(plan_of(more))
    keyed = [groups(plan_of(folder, key=b"a key of the hospital")) for folder in (few, more)]
    assert keyed[0] == keyed[1]


@pytest.mark.usefixtures("inline")
@pytest.mark.parametrize("column", ["patient_id", "StudyInstanceUID", "series_instance_uid", "SOPInstanceUID"])
def test_labels_come_by_patient_study_series_or_image(tmp_path: Path, column: str) -> None:
    raw = hospital.slices(tmp_path / "raw", patients=4, each=2)
    word = {"patient_id": "PatientID", "series_instance_uid": "SeriesInstanceUID"}.get(column, column)
    ids = {path.name: str(pydicom.dcmread(path)[word].value) for path in raw.iterdir()}
    wanted = {name: "xy"[int(name[0]) % 2] for name in ids if name[0] != "3"}
    rows = {ids[name]: label for name, label in sorted(wanted.items())} | {"7.7.7": "x"}
    plan = plan_of(raw, labels=table(tmp_path / "labels.csv", column, rows))
    found = {sample.record.path.name: sample.record.labels for sample in plan.samples}
    assert found == {name: (wanted[name],) if name in wanted else None for name in ids}
    level = {"p": "patient", "St": "study", "se": "series", "SO": "sop"}
    (name,) = [level[start] for start in level if column.startswith(start)]
    assert f"1 row of the table of labels: no file is of its {name}" in plan.listing.notes
    assert "7.7.7" not in repr(pickle.dumps(plan)) and "PAT" not in repr(pickle.dumps(plan))


@pytest.mark.usefixtures("inline")
def test_the_finest_column_counts_and_differing_rows_of_one_id_are_quarantined(tmp_path: Path) -> None:
    raw = hospital.slices(tmp_path / "raw", patients=3, each=2)
    series = [f"{hospital.ROOT}.{n}.1" for n in (1, 2, 3)]
    path = tmp_path / "labels.csv"
    path.write_text(
        "patient_id,series,label,split\n"
        + "".join(f"PAT{n},{series[n]},{'xy'[n % 2]},{('train', 'test', '')[n]}\n" for n in range(3))
        + f"PAT0,{series[0]},y,train\n"
    )
    plan = plan_of(raw, labels=path)
    assert [entry["reason"] for entry in plan.quarantined] == [
        "the table of labels has differing rows for its series"
    ] * 2
    kept = {sample.record.path.name: (sample.record.labels, sample.split) for sample in plan.samples}
    assert kept["1-0.dcm"] == kept["1-1.dcm"] == (("y",), "test") and kept["2-0.dcm"][0] == ("x",)


def test_a_table_that_names_nothing_of_a_header_is_refused_with_the_names_that_are_known(tmp_path: Path) -> None:
    raw = hospital.slices(tmp_path / "raw", patients=1)
    with pytest.raises(ValueError, match="no column that says what a row is about; name one patient_id"):
        plan_of(raw, labels=table(tmp_path / "labels.csv", "room", {"1": "a", "2": "b"}))
    with pytest.raises(ValueError, match="has only one class"):
        plan_of(raw, labels=table(tmp_path / "labels.csv", "patient_id", {"1": "a", "2": "a"}))
    with pytest.raises(ValueError, match="--labels goes with --layout dicom only"):
        UserDataset("mine", "folder", Options(labels=tmp_path / "labels.csv"))
    with pytest.raises(ValueError, match="--label-column is about a table; give it: --labels FILE"):
        UserDataset("mine", "dicom", Options(label_column="x"))


@pytest.mark.usefixtures("inline")
def test_dicom_among_other_files_is_found_by_its_bytes_in_every_layout(tmp_path: Path) -> None:
    raw = small_shards.draw(tmp_path / "raw", count=6)
    hospital.slices(tmp_path / "dicom", patients=2)
    for number, path in enumerate(sorted((tmp_path / "dicom").iterdir())):
        path.rename(raw / "naevus" / f"{number}.png")
    plan = small_shards.plan_of(raw)
    assert sum(sample.kind == "CT" for sample in plan.samples) == 6 and not plan.quarantined


@pytest.mark.usefixtures("inline")
def test_copies_are_passed_over_and_two_files_that_claim_to_be_one_are_quarantined(tmp_path: Path) -> None:
    raw = hospital.slices(tmp_path / "raw", patients=2, each=2)
    shutil.copy(raw / "0-0.dcm", raw / "copy.dcm")
    ds = pydicom.dcmread(raw / "1-1.dcm")
    ds.PixelData = bytes(len(ds.PixelData))
    save(ds, raw / "other.dcm")
    plan = plan_of(raw)
    assert [passed.kind for passed in plan.listing.passed_over] == ["copies of a DICOM file"]
    assert [entry["reason"][:41] for entry in plan.quarantined] == ["has the SOP instance uid of another file,"] * 2
    assert len(plan.samples) == 3


@pytest.mark.usefixtures("inline")
def test_every_frame_of_a_loop_is_a_sample_of_one_group_and_frames_says_which(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (5, 16, 16, 3), np.uint8)
    save(with_pixels(header("US"), pixels), tmp_path / "raw" / "loop")
    assert sorted(sample.record.part for sample in plan_of(tmp_path / "raw", frames="every=2").samples) == [
        (0,),
        (2,),
        (4,),
    ]
    plan = plan_of(tmp_path / "raw")
    assert len(plan.samples) == 5 and len({sample.group for sample in plan.samples}) == 1
    shards = written(plan, tmp_path / "out")
    part = {sample.key: sample.record.part[0] for sample in plan.samples}
    for row in rows_of(shards):
        data = (shards.folder / row["tar"]).read_bytes()[row["offset"] : row["offset"] + row["size"]]
        assert (images.decode_stored(data) == pixels[part[row["key"]]]).all()


@pytest.mark.usefixtures("small_tars")
def test_parts_written_apart_and_a_stop_between_tars_give_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a job array writes them; with worker processes."""
    raw = hospital.slices(tmp_path / "raw", patients=8, each=3)
    rng = np.random.default_rng(0)
    save(with_pixels(header("US", study=99), rng.integers(0, 255, (6, 16, 16), np.uint8)), raw / "loop")
    plan = plan_of(raw, split="image")
    whole = written(plan, tmp_path / "whole", workers=2)
    sent: ShardPlan = pickle.loads(pickle.dumps(plan))
    for part in (2, 0, 1):
        writing.write_part(sent, tmp_path / "parts", part, 3, workers=1, progress=silent, patience=0)
    parts = written(plan, tmp_path / "parts")
    assert contents(whole.folder) == contents(parts.folder)
    assert len(list(whole.folder.glob("*.tar"))) > 2


def test_keys_follow_from_ids_of_images_and_groups_from_contents(tmp_path: Path, inline: None) -> None:
    raw = hospital.slices(tmp_path / "raw", patients=2, each=2)
    plan = plan_of(raw)
    keys = {sample.record.path.name: sample.key for sample in plan.samples}
    assert len(set(keys.values())) == 4 and all(len(key) == 20 for key in keys.values())
    ds = pydicom.dcmread(raw / "0-0.dcm")
    ds.PatientName, ds.PixelData = "Else^Someone", bytes(len(ds.PixelData))
    save(ds, raw / "0-0.dcm")
    again = {sample.record.path.name: sample for sample in plan_of(raw).samples}
    assert {name: sample.key for name, sample in again.items()} == keys
    before = {sample.record.path.name: sample.group for sample in plan.samples}
    assert again["1-0.dcm"].group == before["1-0.dcm"] and again["0-1.dcm"].group != before["0-1.dcm"]


@pytest.mark.usefixtures("inline")
def test_slices_of_a_series_without_windows_share_one_and_another_series_has_its_own(tmp_path: Path) -> None:
    """Two MR series; in each the second slice is a little brighter than the first, and stays so."""
    rng = np.random.default_rng(0)
    for series, gain in ((1, 1), (2, 10)):
        for number in range(2):
            values = (rng.uniform(0, 100, (16, 16)) + 50 * number) * gain
            ds = with_pixels(header("MR", series=series, number=number), values.astype(np.uint16))
            save(ds, tmp_path / "raw" / f"{series}-{number}")
    plan = plan_of(tmp_path / "raw", split="image")
    ends = {sample.record.path.name: sample.source.ends for sample in plan.samples}
    assert ends["1-0"] == ends["1-1"] and ends["2-0"] == ends["2-1"]
    assert ends["1-0"] and ends["2-0"] and 8 < ends["2-0"][1] / ends["1-0"][1] < 12
    shards = written(plan, tmp_path / "out")
    names = {sample.key: sample.record.path.name for sample in plan.samples}
    means = {}
    for row in rows_of(shards):
        data = (shards.folder / row["tar"]).read_bytes()[row["offset"] : row["offset"] + row["size"]]
        means[names[row["key"]]] = images.decode_stored(data).mean()
    assert means["1-1"] - means["1-0"] > 60 and means["2-1"] - means["2-0"] > 60
    assert abs(means["1-0"] - means["2-0"]) < 12
    assert plan_of(tmp_path / "raw", split="image").fingerprint == plan.fingerprint


def series_of_two(raw: Path) -> None:
    """Two series of a patient each, two slices without a window; the second slice is ten times as bright."""
    rng = np.random.default_rng(0)
    for series in (1, 2):
        for number in (1, 2):
            values = rng.uniform(0, 100, (16, 16)) * (1, 10)[number - 1]
            ds = header("MR", patient=f"PAT{series}", study=series, series=series, number=number)
            save(with_pixels(ds, values.astype(np.uint16)), raw / f"{series}-{number}")


def pixels_of(shards: Shards) -> dict[str, bytes]:
    rows = rows_of(shards)
    return {
        row["key"]: (shards.folder / row["tar"]).read_bytes()[row["offset"] : row["offset"] + row["size"]]
        for row in rows
    }


@pytest.mark.usefixtures("inline")
def test_a_slice_that_is_quarantined_does_not_change_the_window_of_its_series(tmp_path: Path) -> None:
    series_of_two(tmp_path / "raw")
    ids = {path.name: str(pydicom.dcmread(path).SOPInstanceUID) for path in (tmp_path / "raw").iterdir()}
    path = table(tmp_path / "labels.csv", "SOPInstanceUID", {ids[name]: "ab"[int(name[0]) - 1] for name in sorted(ids)})
    path.write_text(path.read_text() + f"{ids['1-2']},b\n")
    with_it = plan_of(tmp_path / "raw", labels=path, split="image")
    assert len(with_it.quarantined) == 1 and len(with_it.samples) == 3
    one = written(with_it, tmp_path / "one", max_bad=1)
    shutil.move(tmp_path / "raw" / "1-2", tmp_path / "1-2")
    other = written(plan_of(tmp_path / "raw", labels=path, split="image"), tmp_path / "other")
    assert one.folder.name == other.folder.name and pixels_of(one) == pixels_of(other)


@pytest.mark.usefixtures("inline")
def test_another_window_of_a_series_is_another_fingerprint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    series_of_two(tmp_path / "raw")
    before = plan_of(tmp_path / "raw").fingerprint
    assert plan_of(tmp_path / "raw").fingerprint == before
    monkeypatch.setattr(headers, "percentiles_of", lambda window: Window("percentiles", 1, 99))
    assert plan_of(tmp_path / "raw").fingerprint != before


@pytest.mark.usefixtures("inline")
@pytest.mark.parametrize("key", [None, b"a key of the hospital"])
def test_files_without_a_patient_are_in_the_group_of_their_study_and_series(tmp_path: Path, key: bytes | None) -> None:
    """Of each study one file names the patient, one its study alone, and one only the series of that."""
    for study in range(1, 21):
        for number in range(3):
            ds = header("CR", patient=f"PAT{study}" if number == 0 else "", study=study, number=number)
            ds.SeriesInstanceUID = f"{hospital.ROOT}.{study}.{min(number, 1)}"
            if number == 2:
                del ds.StudyInstanceUID
            pixels = np.random.default_rng(study * 10 + number).integers(0, 4000, (16, 16))
            save(with_pixels(ds, pixels.astype(np.uint16)), tmp_path / "raw" / f"{study}-{number}")
    plan = plan_of(tmp_path / "raw", key=key)
    units: dict[str, set[tuple[str | None, str]]] = {}
    for sample in plan.samples:
        study = sample.record.path.name.partition("-")[0]
        units.setdefault(study, set()).add((sample.group, sample.split))
    assert plan.settings.split == "grouped" and len(plan.samples) == 60
    assert all(len(unit) == 1 for unit in units.values()) and len(units) == 20
    assert len({group for unit in units.values() for group, _ in unit}) == 20
    if key:
        patients = {Secret(key, True).hash("patient", f"PAT{study}") for study in range(1, 21)}
        assert {sample.group for sample in plan.samples} == patients
