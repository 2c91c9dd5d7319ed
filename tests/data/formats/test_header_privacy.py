"""No value of a header, and no name of a file, is in anything that sharding writes or prints."""

from __future__ import annotations

import contextlib
import pickle
import shutil
import subprocess
import sys
import tarfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import hospital
import numpy as np
import pyarrow.parquet as parquet
import pydicom
import pytest
import small_shards
from pydicom import config
from pydicom.dataset import Dataset
from repository import ROOT

from pipeline.core.console import silent
from pipeline.data.decoders.formats import BadImage
from pipeline.data.formats import dicom, dicom_pixels
from pipeline.data.formats.reading import Reading
from pipeline.data.layouts import UserDataset
from pipeline.data.layouts.options import Options
from pipeline.data.shards import summary
from pipeline.data.shards.plan import ShardPlan, make_plan
from pipeline.data.shards.transcode import AUTO, ShardSettings

NAME = "QQZXDOE"
TEXT = set("AE AS CS DA DS DT IS LO LT PN SH ST TM UC UI UR UT UN".split())
NEEDED = set(
    "SOPClassUID Modality PhotometricInterpretation NumberOfFrames RescaleSlope RescaleIntercept WindowCenter "
    "WindowWidth BurnedInAnnotation VOILUTFunction ReferencedSOPClassUID".split()
)
"""What decides how a file is read: of these, each file has one planted with the name."""
FILES = [
    *("CT_small.dcm", "MR_small.dcm", "examples_palette.dcm", "examples_rgb_color.dcm", "SC_rgb_rle_2frame.dcm"),
    *("JPEG2000.dcm", "SC_rgb_jpeg_gdcm.dcm", "examples_overlay.dcm", "MR_truncated.dcm", "rtplan.dcm"),
    *("dicomdirtests/77654033/CR1/6154", "dicomdirtests/98892001/CT5N/2062", "test-SR.dcm", "waveform_ecg.dcm"),
]


@contextlib.contextmanager
def careless() -> Iterator[None]:
    """Read and write values that their kind does not allow."""
    before = config.settings.reading_validation_mode, config.settings.writing_validation_mode
    config.settings.reading_validation_mode = config.settings.writing_validation_mode = config.IGNORE
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        config.settings.reading_validation_mode, config.settings.writing_validation_mode = before


def plant(ds: Dataset, only: str | None = None) -> int:
    """Write NAME into all text of a header, inside sequences too, or into one element alone; returns how often."""
    count = 0
    for element in ds:
        if element.VR == "SQ":
            count += sum(plant(item, only) for item in element.value)
        elif element.VR in TEXT and element.tag.group != 2:
            if element.keyword == only if only else element.keyword not in NEEDED:
                value = NAME.encode() if element.VR == "UN" else NAME
                if element.VR in ("IS", "DS"):  # numbers, of which pydicom keeps the text
                    raw = pydicom.dataelem.RawDataElement(element.tag, "LO", 8, f"{NAME} ".encode(), 0, False, True)
                    ds._dict[element.tag] = raw
                else:
                    element.value = value
                count += 1
    return count


def plant_all(folder: Path) -> int:
    """Files with the name in their headers, and in the names of files and folders; returns how often it is written."""
    count = number = 0
    with careless():
        for file in FILES:
            path = hospital.test_files() / file
            for only in (None, *sorted(NEEDED)):
                ds = pydicom.dcmread(path)
                if only and only not in ds:
                    continue
                if only:
                    ds.SOPInstanceUID = f"{hospital.ROOT}.77.{number}"
                planted = plant(ds, only)
                if planted and not only:
                    ds.SOPInstanceUID = f"{ds.SOPInstanceUID}.{number}"
                count += planted
                number += 1
                target = folder / f"{NAME}^JANE" / f"{NAME}-{number}.dcm"
                target.parent.mkdir(parents=True, exist_ok=True)
                ds.save_as(target)
    (folder / f"{NAME}.txt").write_text(NAME)
    (folder / f"{NAME}.png").write_bytes(b"no image")
    (folder / f"{NAME}.lost").symlink_to(folder / f"{NAME} was here")
    return count


def everything(out: Path) -> Iterator[tuple[str, bytes]]:
    """The names and the bytes of all files, the members of tars and the cells of the index."""
    for path in sorted(out.rglob("*")):
        yield f"name of {path.name}", str(path.relative_to(out)).encode()
        if path.is_file():
            yield path.name, path.read_bytes()
        if path.suffix == ".tar":
            with tarfile.open(path) as tar:
                yield path.name, repr([member.get_info() for member in tar.getmembers()]).encode()
        if path.suffix == ".parquet":
            yield path.name, repr(parquet.read_table(path).to_pylist()).encode()


def test_a_name_that_is_in_every_text_of_real_headers_is_in_nothing_that_is_written_or_printed(tmp_path: Path) -> None:
    assert plant_all(tmp_path / "raw") > 1000
    command = [sys.executable, "-m", "pipeline.shard", "mine", "--layout", "dicom", "--raw", str(tmp_path / "raw")]
    flags = ["--out", str(tmp_path / "out"), "--size", "32", "--max-bad", "1", "--workers", "1"]
    done = subprocess.run([*command, *flags], cwd=ROOT, capture_output=True)
    assert done.returncode == 0, done.stderr
    (index,) = (tmp_path / "out").rglob("index.parquet")
    assert len(parquet.read_table(index)) > 20 and b" quarantined" in done.stdout
    found = [("stdout", done.stdout), ("stderr", done.stderr), *everything(tmp_path / "out")]
    leaks = [name for name, data in found if NAME.encode() in data or NAME.encode("utf-16-le") in data]
    assert leaks == []
    done = subprocess.run([*command, *flags, "--strict"], cwd=ROOT, capture_output=True)
    said = (done.stdout + done.stderr).replace(str(tmp_path).encode(), b"")
    assert done.returncode == 2 and b"--strict accepts none" in said and NAME.encode() not in said


def test_the_list_that_the_user_asks_for_has_the_names_and_the_plan_no_value_of_a_header(tmp_path: Path) -> None:
    with careless():
        ds = pydicom.dcmread(hospital.test_files() / "MR_small.dcm")
        plant(ds)
        (tmp_path / "raw").mkdir()
        ds.save_as(tmp_path / "raw" / "good.dcm")
    (tmp_path / "raw" / "bad.dcm").write_bytes(bytes(128) + b"DICM" + NAME.encode())
    settings = ShardSettings(size=16, split=AUTO, format="png", quality=None, keep_names=False)
    plan = make_plan(UserDataset("mine", "dicom"), tmp_path / "raw", settings, workers=1, progress=silent)
    assert NAME.encode() not in pickle.dumps(plan)
    lines = summary.account(plan, plan.quarantined)
    assert any(line.startswith("quarantined\tis DICOM") and "\tbad.dcm (unread file 1)" in line for line in lines)
    assert any(line == "written\ttrain\tgood.dcm" for line in lines)


@pytest.mark.parametrize("name", ["Rows", "BitsStored", "PixelRepresentation"])
def test_a_reason_quotes_no_value(tmp_path: Path, name: str) -> None:
    ds = hospital.with_pixels(hospital.header("CR"), np.zeros((4, 4), "u2"))
    setattr(ds, name, 60_001)
    (tmp_path / "raw").mkdir()
    hospital.save(ds, tmp_path / "raw" / "a.dcm")
    with open(tmp_path / "raw" / "a.dcm", "rb") as file, pytest.raises(BadImage) as caught:
        dicom_pixels.decode(file, (), Reading(), channels=3, memory=None)
    assert "60001" not in str(caught.value) and "60,001" not in str(caught.value)


def plan_of(raw: Path, layout: str, options: Options | None = None) -> ShardPlan:
    settings = ShardSettings(size=16, split="image", format="png", quality=None, keep_names=False)
    return make_plan(UserDataset("mine", layout, options), raw, settings, workers=1, progress=silent)


@pytest.fixture
def burnt_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Images in folders, and a file of ultrasound that is refused, which is named after its patient."""
    small_shards.work_inline(monkeypatch)
    raw = small_shards.draw(tmp_path / "raw", count=6)
    ds = hospital.with_pixels(hospital.header("US"), np.zeros((16, 16), np.uint8))
    ds.BurnedInAnnotation = "YES"
    hospital.save(ds, raw / "naevus" / f"{NAME}.dcm")
    return raw


@pytest.mark.parametrize("is_installed", [True, False])
def test_dicom_that_is_refused_hides_the_names_of_files_too(
    burnt_in: Path, is_installed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not is_installed:
        monkeypatch.setitem(sys.modules, "pydicom", None)
    plan = plan_of(burnt_in, "folder")
    reason = "says that text is burnt" if is_installed else "needs the library pydicom"
    assert [entry["file"] for entry in plan.quarantined] == ["unread file 1"]
    assert plan.hides_names and plan.quarantined[0]["reason"].startswith(reason)
    assert NAME not in summary.of_plan(plan) and NAME in "".join(summary.account(plan, plan.quarantined))


def test_a_file_that_only_begins_as_dicom_hides_none(burnt_in: Path) -> None:
    (burnt_in / "naevus" / f"{NAME}.dcm").write_bytes(bytes(128) + b"DICM" + bytes(300))
    plan = plan_of(burnt_in, "folder")
    assert [entry["reason"] for entry in plan.quarantined] == [dicom.STRAY] and not plan.hides_names


def test_no_path_of_dicom_is_quoted_where_no_group_is_found(burnt_in: Path) -> None:
    shutil.move(burnt_in / "naevus" / f"{NAME}.dcm", burnt_in / f"{NAME}.dcm")
    with pytest.raises(ValueError, match="'zzz' finds a group in no path$"):
        plan_of(burnt_in, "dicom", Options(group_from="zzz"))
    with pytest.raises(ValueError, match="the first path is"):
        plan_of(burnt_in, "folder", Options(group_from="zzz"))
