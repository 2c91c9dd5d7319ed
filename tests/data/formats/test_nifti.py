"""NIfTI volumes to slices: orientation, which slices, windows; files are told by their bytes."""

from __future__ import annotations

import gzip
import shutil
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import small_shards
from nibabel.orientations import apply_orientation, axcodes2ornt, inv_ornt_aff, ornt_transform
from small_shards import written

from pipeline.core.console import silent
from pipeline.data.decoders.formats import BadImage
from pipeline.data.formats import files, kinds, nifti
from pipeline.data.formats.reading import Found, Reading, Secret
from pipeline.data.layouts import UserDataset
from pipeline.data.layouts.options import Options
from pipeline.data.shards.plan import ShardPlan, make_plan
from pipeline.data.shards.transcode import AUTO, ShardSettings


def volume() -> np.ndarray:
    """int16 [right 4, anterior 5, superior 6], brighter towards the right, and once more towards the head."""
    x, y, z = np.meshgrid(np.arange(4), np.arange(5), np.arange(6), indexing="ij")
    return (x * 10 + y * 100 + z * 1000).astype(np.int16)


def save(path: Path, values: np.ndarray, codes: str = "RAS", **more: Any) -> Path:
    """Save a volume [right, anterior, superior, …] as it is stored in another orientation."""
    turn = ornt_transform(axcodes2ornt("RAS"), axcodes2ornt(codes))
    affine = np.eye(4) @ inv_ornt_aff(turn, values.shape[:3])
    image = nibabel.Nifti1Image(apply_orientation(values, turn), affine)
    for word, value in more.items():
        image.header[word] = value
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(image, path)
    return path


def find(path: Path, **choices: Any) -> Found | BadImage:
    return files.find_images(
        (path, kinds.NIFTI), reading=Reading(**{"slices": "all"} | choices), secret=Secret(b"", False)
    )


def shown(path: Path, number: int, **choices: Any) -> np.ndarray:
    """uint8 [h, w]."""
    reading = Reading(**{"slices": "all"} | choices)
    decoded = nifti.decode(path, files.stamp_of(path), (number,), reading, channels=3, memory=None)
    return decoded.pixels[..., 0]


@pytest.mark.parametrize("codes", ["RAS", "LAS", "LPI", "PIR", "ASL"])
def test_slices_are_the_same_however_the_volume_is_stored(tmp_path: Path, codes: str) -> None:
    path = save(tmp_path / "scan.nii", volume(), codes)
    window = "2500,6001"  # -500.5 is black and 5499.5 white

    def level(x: int, y: int, z: int) -> int:
        return int((x * 10 + y * 100 + z * 1000 + 500.5) / 6000 * 255 + 0.5)

    for axis, count in (("sagittal", 4), ("coronal", 5), ("axial", 6)):
        found = find(path, axis=axis)
        assert isinstance(found, Found) and len(found.parts) == count
    axial = shown(path, 2, window=window)
    assert axial.shape == (5, 4)
    assert (axial[0, 0], axial[0, -1], axial[-1, 0]) == (level(3, 4, 2), level(0, 4, 2), level(3, 0, 2))
    coronal = shown(path, 1, window=window, axis="coronal")
    assert coronal.shape == (6, 4) and coronal[0, 0] == level(3, 1, 5) and coronal[-1, -1] == level(0, 1, 0)
    sagittal = shown(path, 1, window=window, axis="sagittal")
    assert sagittal.shape == (6, 5) and sagittal[0, 0] == level(1, 4, 5) and sagittal[-1, -1] == level(1, 0, 0)


def test_slices_are_shown_between_percentiles_of_the_whole_volume(tmp_path: Path) -> None:
    values = np.zeros((10, 10, 10), np.int16)
    values[:, :, 5] = 500
    values[0, 0, 5] = 30_000  # one voxel does not decide
    values[:, :, 6] = 1000
    path = save(tmp_path / "scan.nii", values)
    assert (shown(path, 6) == 255).all() and (shown(path, 0) == 0).all()
    assert shown(path, 5)[0, 0] == 128 and shown(path, 5)[-1, -1] == 255 or shown(path, 5)[1, 1] == 128


@pytest.mark.parametrize(
    ("slices", "numbers"),
    [("all", [0, 1, 2, 3, 4, 5]), ("middle", [2]), ("every=4", [0, 4]), ("nonblank", [2, 3])],
)
def test_some_slices_are_taken(tmp_path: Path, slices: str, numbers: list[int]) -> None:
    values = np.zeros((20, 20, 6), np.float32)
    values[..., 2:4] = np.random.default_rng(0).uniform(1, 2, (20, 20, 2))
    found = find(save(tmp_path / "scan.nii.gz", values), slices=slices)
    assert isinstance(found, Found) and [part[0] for part in found.parts] == numbers


def test_of_several_volumes_the_first_is_read_and_it_is_said(tmp_path: Path) -> None:
    four = np.stack([volume(), volume() * 0], axis=3)
    path, one = save(tmp_path / "four.nii", four), save(tmp_path / "one.nii", volume())
    assert (shown(path, 3) == shown(one, 3)).all()
    decoded = nifti.decode(path, files.stamp_of(path), (3,), Reading(slices="all"), channels=4, memory=None)
    assert decoded.remarks == (
        "NIfTI between the percentiles 0.5 and 99.5 of each volume, the default, the first volume of several",
    )


def test_the_files_of_nibabel_are_read_as_nibabel_reads_them() -> None:
    folder = Path(nibabel.__file__).parent / "tests" / "data"
    for name in ("anatomical.nii", "functional.nii", "example4d.nii.gz", "example_nifti2.nii.gz"):
        image = nibabel.as_closest_canonical(nibabel.load(folder / name))
        values = np.asarray(image.dataobj, np.float32).reshape(*image.shape[:3], -1)[..., 0]
        low, high = np.percentile(values, (0.5, 99.5))
        found = find(folder / name)
        assert isinstance(found, Found) and len(found.parts) == image.shape[2], name
        for number in (0, image.shape[2] // 2):
            wanted = np.floor(np.clip((values[:, :, number] - low) / (high - low), 0, 1) * 255 + 0.5)
            assert np.abs(shown(folder / name, number).astype(int) - wanted.T[::-1, ::-1]).max() <= 1, name


def test_a_scale_and_a_window_of_the_file_count(tmp_path: Path) -> None:
    path = save(tmp_path / "scan.nii", volume(), scl_slope=0.5, scl_inter=-10.0, cal_min=0, cal_max=100)
    stored = nibabel.load(path)
    values = np.asarray(stored.dataobj)[:, :, 0]
    wanted = np.floor(np.clip(values / 100, 0, 1) * 255 + 0.5).T[::-1, ::-1]
    assert (shown(path, 0, window="voi") == wanted).all()


def test_what_is_cut_off_coloured_or_flat_is_refused(tmp_path: Path) -> None:
    whole = save(tmp_path / "scan.nii", volume())
    (tmp_path / "cut.nii").write_bytes(whole.read_bytes()[:400])
    assert str(find(tmp_path / "cut.nii")) == "is NIfTI that is cut off: its bytes cannot hold its voxels"
    colours = np.zeros((3, 3, 3), [("R", "u1"), ("G", "u1"), ("B", "u1")])
    nibabel.save(nibabel.Nifti1Image(colours, np.eye(4)), tmp_path / "rgb.nii")
    assert str(find(tmp_path / "rgb.nii")).startswith("is NIfTI of colours or complex numbers")
    data = bytearray(gzip.compress(whole.read_bytes()))
    (tmp_path / "short.nii.gz").write_bytes(data[:-40])
    with pytest.raises(BadImage, match="is NIfTI that is damaged, cut off"):
        shown(tmp_path / "short.nii.gz", 0)


def test_a_few_bytes_that_claim_a_million_slices_are_refused(tmp_path: Path) -> None:
    image = nibabel.Nifti2Image(np.zeros((1, 1, 1_000_000), np.uint8), np.eye(4))
    nibabel.save(image, path := tmp_path / "long.nii.gz")
    assert path.stat().st_size < 5000
    for slices in ("all", "every=2", "nonblank"):
        assert "images, more than 100,000" in str(find(path, slices=slices))
    found = find(path, slices="middle")
    assert isinstance(found, Found) and found.parts == ((499_999,),)


def plan_of(raw: Path, slices: str | None = "all", **options: Any) -> ShardPlan:
    reading = Reading(slices=slices)
    settings = ShardSettings(size=16, split=AUTO, format="png", quality=None, keep_names=False, reading=reading)
    dataset = UserDataset("mine", "folder", Options(volumes=slices is not None, **options))
    return make_plan(dataset, raw, settings, workers=1, progress=silent)


def test_a_folder_of_volumes_is_sharded_by_volume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small_shards.work_inline(monkeypatch)
    rng = np.random.default_rng(0)
    for number in range(10):
        values = np.kron(rng.integers(0, 900, (4, 4, 3)), np.ones((4, 4, 2))).astype(np.int16)
        save(tmp_path / "raw" / "ab"[number % 2] / f"{number}.nii.gz", values)
    shutil.copy(tmp_path / "raw" / "b" / "1.nii.gz", tmp_path / "raw" / "b" / "no ending")
    shutil.copy(tmp_path / "raw" / "a" / "0.nii.gz", tmp_path / "raw" / "a" / "another")
    plan = plan_of(tmp_path / "raw")
    assert len(plan.samples) == 72 and {sample.kind for sample in plan.samples} == {"NIfTI"}
    splits: dict[str, set[str]] = {}
    for sample in plan.samples:
        splits.setdefault(sample.checksum, set()).add(sample.split)
    assert len(splits) == 10 and all(len(of) == 1 for of in splits.values())
    places = [sample.record.path for sample in plan.samples]
    assert sum(one != other for one, other in zip(places, places[1:], strict=False)) == 11  # a file stays together
    assert len(written(plan, tmp_path / "out").rows["key"]) == 72
    alone = plan_of(tmp_path / "raw", None)  # as it always was: passed over by its ending, or quarantined
    assert len(alone.samples) == 2 and sum(passed.kind == ".nii.gz" for passed in alone.listing.passed_over) == 10
