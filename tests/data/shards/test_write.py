"""Shards have the same bytes every time, are resumed tar by tar and count every image, bad ones too."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from messy import CLASSES
from PIL import Image
from small_shards import SETTINGS, contents, plan_of, rows_of, written
from stock_reader import samples

from pipeline.core import files
from pipeline.core.console import silent
from pipeline.data import images
from pipeline.data.layouts import UserDataset
from pipeline.data.shards import plan as planning
from pipeline.data.shards import write
from pipeline.data.shards.transcode import ShardSettings
from pipeline.data.shards.write import count_missing_tars, write_part


@pytest.mark.usefixtures("small_tars")
def test_the_same_files_give_the_same_bytes_whatever_the_number_of_workers(raw: Path, tmp_path: Path) -> None:
    one = written(plan_of(raw, workers=1), tmp_path / "one", workers=1)
    shutil.copytree(raw, tmp_path / "elsewhere")
    three = written(plan_of(tmp_path / "elsewhere", workers=3), tmp_path / "three", workers=3)
    assert one.folder.name == three.folder.name
    assert contents(one.folder) == contents(three.folder)
    assert len(list(one.folder.glob("*.tar"))) > 3


@pytest.mark.usefixtures("inline", "small_tars")
@pytest.mark.parametrize("format", ["jpeg", "webp", "png"])
def test_the_index_points_at_the_bytes_of_every_image(raw: Path, tmp_path: Path, format: str) -> None:
    settings = ShardSettings(size=16, split="image", format=format, quality=None, keep_names=False)
    shards = written(plan_of(raw, settings=settings), tmp_path)
    rows = rows_of(shards)
    assert len({row["key"] for row in rows}) == len(rows) == 66
    for row in rows:
        tar = shards.folder / row["tar"]
        data = tar.read_bytes()[row["offset"] : row["offset"] + row["size"]]
        assert files.sha256_bytes(data) == row["sha256"]
        with tarfile.open(tar) as opened:
            member = opened.getmember(f"{row['key']}.{images.FORMATS[format]}")
            assert (member.offset_data, member.size) == (row["offset"], row["size"])
            label = opened.extractfile(f"{row['key']}.json")
            assert label is not None and json.load(label) == {"labels": row["labels"]}
        assert images.decode_stored(data).shape == (16, 16, 3)
        assert row["tar"].startswith(row["split"])
        assert (row["width"], row["height"]) == (48, 36)


@pytest.mark.usefixtures("inline")
def test_lossless_shards_hold_the_resized_pixels_of_the_right_image(raw: Path, tmp_path: Path) -> None:
    settings = ShardSettings(size=20, split="image", format="png", quality=None, keep_names=True)
    shards = written(plan_of(raw, settings=settings), tmp_path)
    for row in rows_of(shards):
        with Image.open(raw / f"{row['key'].replace('_', '/')}.png") as original:
            resized = images.resize(np.asarray(original), 20)
        data = (shards.folder / row["tar"]).read_bytes()[row["offset"] : row["offset"] + row["size"]]
        assert (images.decode_stored(data) == resized).all()
        assert row["labels"] == (None if row["key"].startswith("unlabelled") else [row["key"].split("_")[0]])


@pytest.mark.usefixtures("inline", "small_tars")
def test_the_stock_webdataset_reader_sees_every_sample(raw: Path, tmp_path: Path) -> None:
    shards = written(plan_of(raw), tmp_path)
    seen = samples(shards.folder.glob("*.tar"))
    rows = rows_of(shards)
    assert {key: sample["labels"] for key, sample in seen.items()} == {row["key"]: row["labels"] for row in rows}
    assert all(set(sample["sizes"]) == {"jpg", "json"} for sample in seen.values())
    assert {key: sample["sizes"]["jpg"] for key, sample in seen.items()} == {row["key"]: row["size"] for row in rows}


@pytest.mark.usefixtures("inline", "small_tars")
def test_classes_are_mixed_within_a_tar(raw: Path, tmp_path: Path) -> None:
    """Some readers shuffle with a small buffer only."""
    rows = rows_of(written(plan_of(raw), tmp_path))
    full = [list(group) for _, group in itertools.groupby(rows, key=lambda row: row["tar"])]
    for group in full:
        if len(group) == 10:
            assert len({str(row["labels"]) for row in group}) >= 3
    assert [row["key"] for row in rows] != sorted(row["key"] for row in rows)


@pytest.mark.usefixtures("inline")
def test_a_tar_stays_below_its_limit_even_if_nothing_compresses(
    raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    for path in raw.rglob("*.png"):
        Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(path)
    monkeypatch.setattr(planning, "TAR_BYTES", 100_000)
    settings = ShardSettings(size=64, split="image", format="png", quality=None, keep_names=False)
    shards = written(plan_of(raw, settings=settings), tmp_path)
    sizes = [path.stat().st_size for path in shards.folder.glob("*.tar")]
    assert len(sizes) > 5
    assert max(sizes) <= 100_000 + tarfile.RECORDSIZE


def stop_at(monkeypatch: pytest.MonkeyPatch, name: str, calls: int) -> None:
    """Let a function of `write` raise at its call number `calls`."""
    real, count = getattr(write, name), itertools.count(1)

    def stopping(*arguments: Any) -> Any:
        if next(count) == calls:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(write, name, stopping)


@pytest.mark.usefixtures("inline", "small_tars")
@pytest.mark.parametrize(
    ("name", "calls", "tars"), [("_write_tar", 1, 0), ("_write_tar", 3, 2), ("_write_tar", 8, 7), ("write_index", 1, 8)]
)
def test_a_stopped_job_continues_after_its_finished_tars_to_the_same_bytes(
    raw: Path, tmp_path: Path, name: str, calls: int, tars: int
) -> None:
    calm = written(plan_of(raw), tmp_path / "calm")
    plan = plan_of(raw)
    folder = tmp_path / "rough" / plan.folder_name
    with pytest.MonkeyPatch.context() as patch:
        stop_at(patch, name, calls)
        with pytest.raises(KeyboardInterrupt):
            written(plan, tmp_path / "rough")
    finished = {path: path.stat() for path in folder.glob("*.tar")}
    assert len(finished) == tars
    assert not (folder / "index.parquet").exists() and not (folder / "manifest.json").exists()

    again = written(plan_of(raw), tmp_path / "rough")
    assert contents(again.folder) == contents(calm.folder)
    for path, before in finished.items():
        assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


KILLED = """
import os, signal, sys
from pathlib import Path
from pipeline.data.shards import plan, write
import small_shards

def main():
    plan.TAR_IMAGES = 10
    real, left = write._write_tar, [int(sys.argv[3])]

    def killing(folder, tar, members, plan, answers):
        def counted():
            for answer in answers:
                left[0] -= 1
                if not left[0]:
                    os.kill(os.getpid(), signal.SIGKILL)
                yield answer
        real(folder, tar, members, plan, counted())

    write._write_tar = killing
    small_shards.written(small_shards.plan_of(Path(sys.argv[1])), Path(sys.argv[2]))

if __name__ == "__main__":
    main()
"""


@pytest.mark.usefixtures("small_tars")
def test_a_job_killed_within_a_tar_continues_to_the_same_bytes_and_leaves_no_process(raw: Path, tmp_path: Path) -> None:
    (tmp_path / "killed.py").write_text(KILLED)
    process = subprocess.Popen(
        [sys.executable, tmp_path / "killed.py", raw, tmp_path / "rough", "25"],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "support")},
        stdout=subprocess.PIPE,  # every descendant process holds it open
        stderr=subprocess.STDOUT,
    )
    said, _ = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL, said
    plan = plan_of(raw)
    folder = tmp_path / "rough" / plan.folder_name
    assert len(list(folder.glob("*.tar"))) == 2
    assert list(folder.glob(".*.tmp"))
    again = written(plan, tmp_path / "rough")
    calm = written(plan_of(raw), tmp_path / "calm")
    assert contents(again.folder) == contents(calm.folder)


@pytest.mark.usefixtures("inline")
def test_finished_shards_do_not_change(raw: Path, tmp_path: Path) -> None:
    first = written(plan_of(raw), tmp_path)
    before = {path: path.stat().st_mtime_ns for path in first.folder.iterdir()}
    second = written(plan_of(raw), tmp_path)
    assert second == first
    assert {path: path.stat().st_mtime_ns for path in first.folder.iterdir()} == before


@pytest.mark.usefixtures("inline")
def test_of_two_jobs_at_once_the_second_is_an_error(raw: Path, tmp_path: Path) -> None:
    plan = plan_of(raw)
    folder = tmp_path / plan.folder_name
    with (
        files.lock(folder / ".lock"),
        pytest.raises(files.Busy, match=f"another process is at work on {folder}; wait for it to end"),
    ):
        written(plan, tmp_path)
    assert [path.name for path in folder.iterdir()] == [".lock"]


@pytest.mark.usefixtures("inline")
def test_a_job_that_gets_the_lock_after_another_finished_has_nothing_to_do(
    raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other job finishes after this one looked for the manifest and before it gets the lock."""
    plan = plan_of(raw)
    folder = tmp_path / plan.folder_name
    real = files.lock

    def late(path: Path, **options: Any) -> Any:
        monkeypatch.setattr(files, "lock", real)
        written(plan_of(raw), tmp_path)
        return real(path, **options)

    monkeypatch.setattr(files, "lock", late)
    calls: list[str] = []
    wrote = write._write_tar
    monkeypatch.setattr(write, "_write_tar", lambda f, tar, *rest: (calls.append(tar), wrote(f, tar, *rest)))
    written(plan, tmp_path)
    assert len(calls) == len(set(calls)) == len(list(folder.glob("*.tar")))


@pytest.mark.usefixtures("inline", "small_tars")
def test_parts_written_by_others_in_any_order_give_the_bytes_of_one_job(raw: Path, tmp_path: Path) -> None:
    calm = written(plan_of(raw), tmp_path / "calm")
    plan, out = plan_of(raw), tmp_path / "parts"
    options: Any = {"workers": 1, "progress": silent, "patience": 0.0}
    tars = len(plan.tars())
    assert count_missing_tars(plan, out) == tars > 3
    write_part(plan, out, 2, 3, **options)
    write_part(plan, out, 0, 3, **options)
    assert count_missing_tars(plan, out) == len(plan.tars()[1::3])
    assert not (out / plan.folder_name / "manifest.json").exists()
    first = {path: path.stat().st_mtime_ns for path in out.rglob("*.tar")}
    shards = written(plan, out)  # the other tars, and the index
    assert contents(shards.folder) == contents(calm.folder)
    assert {path: path.stat().st_mtime_ns for path in first} == first
    write_part(plan, out, 1, 3, **options)  # a late part finds everything done
    assert contents(shards.folder) == contents(calm.folder)


@pytest.mark.usefixtures("inline")
def test_parts_exclude_a_whole_job_but_not_each_other(raw: Path, tmp_path: Path) -> None:
    plan = plan_of(raw)
    with files.lock(tmp_path / plan.folder_name / ".lock", shared=True):
        write_part(plan, tmp_path, 0, 2, workers=1, progress=silent, patience=0.0)
        with pytest.raises(files.Busy):
            written(plan, tmp_path)


def spoil(raw: Path, count: int, data: bytes = b"") -> list[str]:
    """Make the first images of the first class unusable."""
    paths = sorted((raw / CLASSES[0]).iterdir())[:count]
    for path in paths:
        path.write_bytes(data)
    return [str(path.relative_to(raw)) for path in paths]


# bad when it is read, and bad when it is decoded
@pytest.mark.usefixtures("inline")
@pytest.mark.parametrize(("data", "reason"), [(b"", "is empty"), (b"GIF89a", "is a GIF file that cannot be read")])
def test_too_many_bad_images_end_the_job_without_an_index(raw: Path, tmp_path: Path, data: bytes, reason: str) -> None:
    names = spoil(raw, 2, data)
    plan = plan_of(raw)
    folder = tmp_path / plan.folder_name
    for options, rule in (({}, "--max-bad accepts 0.01 of them"), ({"strict": True}, "--strict accepts none")):
        with pytest.raises(ValueError, match=f"2 of 66 images cannot be used and {rule}; fix them") as caught:
            written(plan, tmp_path, **options)  # type: ignore[arg-type]
        assert all(caught.match(f"{name}: .*({reason})") for name in names)
        assert not (folder / "index.parquet").exists() and not (folder / "manifest.json").exists()
    shards = written(plan, tmp_path, max_bad=0.05)
    assert [entry["file"] for entry in shards.manifest["quarantined"]] == names
    assert len(rows_of(shards)) == 64


@pytest.mark.usefixtures("inline")
def test_an_image_that_changed_between_the_passes_is_not_written_under_the_old_fingerprint(
    raw: Path, tmp_path: Path
) -> None:
    plan = plan_of(raw)
    changed = plan.samples[0]
    shutil.copy(plan.samples[1].record.path, changed.record.path)
    shards = written(plan, tmp_path, max_bad=0.05)
    (entry,) = shards.manifest["quarantined"]
    assert entry["file"] == str(changed.record.path.relative_to(raw)) and "changed while" in entry["reason"]
    assert changed.key not in {row["key"] for row in rows_of(shards)}
    assert shards.fingerprint != plan.fingerprint


@pytest.mark.usefixtures("inline")
def test_shards_without_any_image_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "1.jpg").write_bytes(b"")
    (tmp_path / "raw" / "2.jpg").write_bytes(b"no image")
    plan = plan_of(tmp_path / "raw")
    with pytest.raises(ValueError, match="mine: not one usable image under .*raw; check --raw"):
        written(plan, tmp_path, max_bad=1.0)
    assert not (tmp_path / plan.folder_name / "index.parquet").exists()


def csv_of(root: Path, rows: list[str]) -> UserDataset:
    (root / "images.csv").write_text("\n".join(["image,label,patient,split", *rows]) + "\n")
    return UserDataset("mine", "csv")


@pytest.mark.usefixtures("inline")
def test_the_manifest_counts_images_by_split_and_class(raw: Path, tmp_path: Path) -> None:
    for path in raw.rglob("*.png"):
        path.rename(raw / path.name)
    shutil.copy(raw / "000.png", raw / "twin.png")
    shutil.copy(raw / "001.png", raw / "sibling.png")
    rows = [f"{n:03d}.png,naevus,P{n},train" for n in range(10)]
    rows += [f"{n:03d}.png,melanoma,P{n - 10},test" for n in range(10, 14)]  # patients 0 to 3 again
    rows += ["014.png,naevus,P99,val", "015.png,,P0,", "twin.png,naevus,P50,test", "sibling.png,naevus,P1,train"]
    for number in range(16, 66):
        (raw / f"{number:03d}.png").unlink()
    dataset = csv_of(raw, rows)
    (raw / "no_row.png").write_bytes((raw / "015.png").read_bytes() + b"\0")
    shards = written(plan_of(raw, dataset=dataset), tmp_path)
    manifest = shards.manifest
    assert manifest["classes"] == ["melanoma", "naevus"]
    assert manifest["counts"] == {
        "train": {"images": 13, "unlabelled": 2, "classes": {"melanoma": 0, "naevus": 11}},
        "val": {"images": 1, "unlabelled": 0, "classes": {"melanoma": 0, "naevus": 1}},
        "test": {"images": 5, "unlabelled": 0, "classes": {"melanoma": 4, "naevus": 1}},
    }
    assert manifest["test_sharing_group_with_train"] == 4
    assert manifest["identical_across_splits"] == 2  # 000 and its twin; 001 and its sibling are both in train
    assert manifest["quarantined"] == []
    assert manifest["settings"] == SETTINGS.to_json()
    assert set(manifest["versions"]) == {"pillow", "numpy", "pyarrow"}


@pytest.mark.usefixtures("inline")
def test_file_names_and_patients_are_in_the_shards_only_if_asked(raw: Path, tmp_path: Path) -> None:
    for path in raw.rglob("*.png"):
        path.rename(raw / f"Jane_Doe-{path.name}")
    names = sorted(path.name for path in raw.glob("*.png"))
    dataset = csv_of(raw, [f"{name},{CLASSES[n % 3]},Jane Doe {n // 2}," for n, name in enumerate(names)])
    shards = written(plan_of(raw, dataset=dataset), tmp_path)
    assert not [name for name, data in contents(shards.folder).items() if b"Doe" in data]
    groups = [row["group"] for row in rows_of(shards)]
    assert len(set(groups)) == 33  # they still distinguish patients

    named = ShardSettings(**{**SETTINGS.__dict__, "keep_names": True})
    rows = rows_of(written(plan_of(raw, dataset=dataset, settings=named), tmp_path))
    assert {row["key"] for row in rows} == {Path(name).stem for name in names}
    assert {row["group"] for row in rows} == {f"Jane Doe {number}" for number in range(33)}
