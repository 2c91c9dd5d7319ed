"""Files of several pages or frames: each image that is wanted is a sample, all of one file share a group."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_shards import rows_of, written

from pipeline.core.console import silent
from pipeline.data import images
from pipeline.data.formats import files
from pipeline.data.formats.reading import Reading
from pipeline.data.layouts import UserDataset
from pipeline.data.shards import summary
from pipeline.data.shards.extend import extended_plan
from pipeline.data.shards.plan import ShardPlan, make_plan
from pipeline.data.shards.transcode import AUTO, ShardSettings

pytestmark = pytest.mark.usefixtures("inline")


def frames(count: int, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [np.kron(rng.integers(0, 256, (4, 4, 3)), np.ones((4, 4, 1))).astype(np.uint8) for _ in range(count)]


def save(path: Path, pixels: list[np.ndarray], **more: object) -> Path:
    first, *rest = [Image.fromarray(each) for each in pixels]
    first.save(path, save_all=True, append_images=rest, **more)
    return path


def four_files(tmp_path: Path) -> Path:
    """Two files of five pages in each of two classes."""
    for number in range(4):
        (folder := tmp_path / "raw" / "ab"[number % 2]).mkdir(parents=True, exist_ok=True)
        save(folder / f"{number}.tif", frames(5, number))
    return tmp_path / "raw"


def plan_of(raw: Path, which: str | None, split: str = AUTO) -> ShardPlan:
    settings = ShardSettings(
        size=16, split=split, format="png", quality=None, keep_names=False, reading=Reading(frames=which)
    )
    return make_plan(UserDataset("mine", "folder"), raw, settings, workers=1, progress=silent)


def stored(plan: ShardPlan, out: Path) -> dict[tuple[int, ...], np.ndarray]:
    """The stored pixels by their numbers in the file."""
    shards = written(plan, out)
    parts = {sample.key: sample.record.part for sample in plan.samples}
    out_ = {}
    for row in rows_of(shards):
        data = (shards.folder / row["tar"]).read_bytes()[row["offset"] : row["offset"] + row["size"]]
        out_[parts[row["key"]]] = images.decode_stored(data)
    return out_


def test_every_page_of_a_tiff_is_a_sample_and_all_share_a_group(tmp_path: Path) -> None:
    pages = frames(12)
    (raw := tmp_path / "raw").mkdir()
    save(raw / "twelve.tif", pages)
    plan = plan_of(raw, "all")
    assert len(plan.samples) == 12 and len({sample.key for sample in plan.samples}) == 12
    assert len({sample.group for sample in plan.samples}) == 1 and plan.samples[0].group
    assert plan.settings.split == "grouped"  # nobody said so: the file says which images belong together
    found = stored(plan, tmp_path / "out")
    assert all((found[number,] == page).all() for number, page in enumerate(pages))


@pytest.mark.parametrize(("which", "numbers"), [("middle", [5]), ("every=5", [0, 5, 10]), ("every=99", [0])])
def test_some_pages_are_taken(tmp_path: Path, which: str, numbers: list[int]) -> None:
    (raw := tmp_path / "raw").mkdir()
    save(raw / "twelve.tif", frames(12))
    plan = plan_of(raw, which)
    assert sorted(sample.record.part for sample in plan.samples) == [(number,) for number in numbers]


@pytest.mark.parametrize("format", ["gif", "webp", "png"])
def test_every_frame_of_an_animation_is_a_sample(tmp_path: Path, format: str) -> None:
    pixels = [np.broadcast_to(np.array(colour, np.uint8), (16, 16, 3)).copy() for colour in np.eye(3) * 255]
    for number, each in enumerate(pixels):
        each[:4, : 4 + number] = 255
    (raw := tmp_path / "raw").mkdir()
    save(raw / f"moving.{format}", pixels, **({"lossless": True} if format == "webp" else {}))
    found = stored(plan_of(raw, "all"), tmp_path / "out")
    assert sorted(found) == [(0,), (1,), (2,)]
    for number, each in enumerate(pixels):
        assert (found[number,] == each).all(), number


def test_the_pages_of_one_file_are_no_copies_of_each_other_and_copies_of_the_file_are(tmp_path: Path) -> None:
    raw = four_files(tmp_path)
    plan = plan_of(raw, "all", "image")
    manifest = written(plan, tmp_path / "out").manifest
    assert {sample.split for sample in plan.samples} == {"train", "val", "test"}
    assert manifest["identical_across_splits"] == summary.json_of_plan(plan)["identical_across_splits"] == 0
    for split in ("val", "test"):
        counts = manifest["twins"][split]
        assert counts["images"] and not (counts["exact"] or counts["near"] or counts["mirrored"])
    shutil.copy(raw / "a" / "0.tif", raw / "a" / "again.tif")
    plan = plan_of(raw, "all", "image")
    shards = written(plan, tmp_path / "twice")
    parts: dict[tuple[int, ...], set[str]] = {}
    for sample in plan.samples:
        if sample.record.path.name in ("0.tif", "again.tif"):
            parts.setdefault(sample.record.part, set()).add(sample.split)
    apart = 2 * sum(len(each) > 1 for each in parts.values())
    assert apart and shards.manifest["identical_across_splits"] == apart
    assert summary.json_of_plan(plan)["identical_across_splits"] == apart


def test_dry_runs_of_shards_that_grow_tell_stored_pages_of_one_file_apart(tmp_path: Path) -> None:
    raw = four_files(tmp_path)
    shards = written(plan_of(raw, "all", "image"), tmp_path / "out")
    save(raw / "a" / "new.tif", frames(5, 9))
    plan = extended_plan(UserDataset("mine", "folder"), raw, shards, workers=1, progress=silent)
    assert len(plan.samples) == 5 and summary.json_of_plan(plan)["identical_across_splits"] == 0
    assert written(plan, tmp_path / "out").manifest["identical_across_splits"] == 0


def test_without_the_flag_they_are_quarantined_with_a_reason_that_names_it(tmp_path: Path) -> None:
    (raw := tmp_path / "raw").mkdir()
    save(raw / "twelve.tif", frames(12))
    save(raw / "one.png", frames(1))
    plan = plan_of(raw, None)
    assert plan.settings.split == "image"
    shards = written(plan, tmp_path / "out", max_bad=1)
    (entry,) = shards.manifest["quarantined"]
    assert entry == {
        "file": "twelve.tif",
        "reason": "holds 12 images; split it into single ones, or say which: --frames",
    }


def test_a_single_image_has_the_same_key_whether_or_not_frames_are_asked_for(tmp_path: Path) -> None:
    (raw := tmp_path / "raw").mkdir()
    for number in range(6):
        save(raw / f"{number}.tif", frames(1, number))
    plain, asked = plan_of(raw, None, "image"), plan_of(raw, "all", "image")
    assert [sample.key for sample in plain.samples] == [sample.key for sample in asked.samples]
    assert "frames" not in plain.settings.to_json() and asked.settings.to_json()["frames"] == "all"


def test_a_smaller_copy_of_a_page_is_no_image_of_its_own(tmp_path: Path) -> None:
    import tifffile

    (raw := tmp_path / "raw").mkdir()
    one, two = frames(2)
    with tifffile.TiffWriter(raw / "scan.tif") as file:
        file.write(one, photometric="rgb")
        file.write(one[::2, ::2], photometric="rgb", subfiletype=1)
        file.write(two, photometric="rgb")
    found = stored(plan_of(raw, "all"), tmp_path / "out")
    assert sorted(found) == [(0,), (2,)] and (found[2,] == two).all()


def test_a_page_that_cannot_be_read_is_quarantined_by_its_number_and_the_others_are_written(tmp_path: Path) -> None:
    (raw := tmp_path / "raw").mkdir()
    pages = frames(3)
    whole = io.BytesIO()
    first, *rest = [Image.fromarray(each) for each in pages]
    first.save(whole, "TIFF", save_all=True, append_images=rest, compression="tiff_deflate")
    data = bytearray(whole.getvalue())
    streams = [place for place in range(len(data)) if data[place : place + 2] == b"\x78\x9c"]
    data[streams[1] + 12] ^= 0xFF
    (raw / "three.tif").write_bytes(data)
    plan = plan_of(raw, "all")
    shards = written(plan, tmp_path / "out", max_bad=1)
    (entry,) = shards.manifest["quarantined"]
    assert entry["file"] == "three.tif, image 2" and len(rows_of(shards)) == 2


def test_a_file_that_changes_between_the_passes_is_not_written(tmp_path: Path) -> None:
    (raw := tmp_path / "raw").mkdir()
    save(raw / "three.tif", frames(3))
    save(raw / "one.png", frames(1))
    plan = plan_of(raw, "all")
    save(raw / "three.tif", frames(3, 9) + frames(1))
    files._kept.cache_clear()  # looking for twins has read it in this process
    shards = written(plan, tmp_path / "out", max_bad=1)
    assert {entry["reason"] for entry in shards.manifest["quarantined"]} == {
        "changed while the dataset was sharded; shard it again"
    }
    assert len(shards.manifest["quarantined"]) == 3


@pytest.mark.parametrize("which", ["some", "every=0", "every=-1", "", "every=2.5"])
def test_what_is_no_choice_is_refused(which: str) -> None:
    with pytest.raises(ValueError, match=r"--frames is .*; give all, middle or every=N"):
        Reading(frames=which)


def test_pages_of_a_file_that_is_no_slide_are_samples_where_tiles_are_asked_for_too(tmp_path: Path) -> None:
    pytest.importorskip("openslide", reason="the extra medical is not installed")
    pages = frames(3)
    (raw := tmp_path / "raw").mkdir()
    save(raw / "three.tif", pages)
    reading = Reading(frames="all", tiles="level=0")
    settings = ShardSettings(size=16, split=AUTO, format="png", quality=None, keep_names=False, reading=reading)
    found = stored(
        make_plan(UserDataset("mine", "folder"), raw, settings, workers=1, progress=silent), tmp_path / "out"
    )
    assert all((found[number,] == page).all() for number, page in enumerate(pages)) and len(found) == 3
