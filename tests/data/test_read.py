"""Pixels come from a map that is built once, checked against the index, and never trusted half-built."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pipeline import files
from pipeline.data import images
from pipeline.data.index import Shards, write_index
from pipeline.data.read import open_pixels, read_pixels
from pipeline.data.tar import TarWriter

SIZE = 12
PICTURES = np.random.default_rng(0).integers(0, 256, (7, SIZE, SIZE, 3), dtype=np.uint8)


@pytest.fixture
def shards(tmp_path: Path) -> Shards:
    """Seven lossless pictures in two tars."""
    folder = tmp_path / "shards" / "mine-12-image-0123abcd"
    folder.mkdir(parents=True)
    rows = []
    for tar, numbers in (("train-000000.tar", range(4)), ("val-000000.tar", range(4, 7))):
        with open(folder / tar, "wb") as file:
            writer = TarWriter(file)
            for number in numbers:
                data = images.encode(PICTURES[number], format="png", quality=None)
                offset = writer.add(f"p{number}.png", data)
                writer.add(f"p{number}.json", b"{}")
                row = {"key": f"p{number}", "split": tar.split("-")[0], "labels": None, "group": None, "tar": tar}
                row |= {"offset": offset, "size": len(data), "sha256": files.sha256_bytes(data)}
                rows.append({**row, "width": SIZE, "height": SIZE})
            writer.close()
    write_index(folder / "index.parquet", rows)
    return Shards(folder, {"name": "mine", "settings": {"size": SIZE}, "fingerprint": "0123abcd" * 2, "classes": []})


def test_the_map_holds_every_picture_in_the_order_of_the_index(shards: Shards, tmp_path: Path) -> None:
    pixels = open_pixels(shards, tmp_path / "scratch")
    assert pixels.dtype == np.uint8
    assert (np.asarray(pixels) == PICTURES).all()
    with pytest.raises(ValueError, match="read-only"):
        pixels[0] = 0


def test_the_map_is_built_once(shards: Shards, tmp_path: Path) -> None:
    open_pixels(shards, tmp_path / "scratch")
    for tar in shards.folder.glob("*.tar"):
        tar.unlink()
    assert (np.asarray(open_pixels(shards, tmp_path / "scratch")) == PICTURES).all()


def test_a_few_pictures_come_straight_from_the_tars(shards: Shards) -> None:
    assert (read_pixels(shards, [5, 0, 2]) == PICTURES[[5, 0, 2]]).all()
    assert read_pixels(shards, []).shape == (0, SIZE, SIZE, 3)
    (shards.folder / "val-000000.tar").write_bytes(bytes(9000))
    with pytest.raises(ValueError, match="val-000000.tar: the bytes of p5 are not those that were written"):
        read_pixels(shards, [0, 5])


def test_scratch_may_be_emptied_at_any_time(shards: Shards, tmp_path: Path) -> None:
    open_pixels(shards, tmp_path / "scratch")
    for path in (tmp_path / "scratch").iterdir():
        path.unlink()
    assert (np.asarray(open_pixels(shards, tmp_path / "scratch")) == PICTURES).all()


def test_a_damaged_tar_is_named_with_the_picture_and_leaves_no_map(shards: Shards, tmp_path: Path) -> None:
    tar = shards.folder / "val-000000.tar"
    data = bytearray(tar.read_bytes())
    data[shards.rows["offset"][5] + 30] ^= 1  # one bit of the sixth picture
    tar.write_bytes(data)
    with pytest.raises(ValueError, match=r"val-000000\.tar: the bytes of p5 are not those that were written; copy the"):
        open_pixels(shards, tmp_path / "scratch")
    assert not list((tmp_path / "scratch").glob("*.u8"))


def test_a_builder_killed_half_way_leaves_nothing_that_is_taken_for_a_map(shards: Shards, tmp_path: Path) -> None:
    code = (
        "import os, signal, sys; from pathlib import Path; from pipeline.data import images, read\n"
        "from pipeline.data.index import Shards; real, left = images.pixels, [4]\n"
        "def pixels(data):\n"
        "    left[0] -= 1\n"
        "    if not left[0]: os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return real(data)\n"
        "images.pixels = pixels\n"
        "shards = Shards(Path(sys.argv[1]), {'name': 'mine', 'settings': {'size': 12}})\n"
        "read.open_pixels(shards, Path(sys.argv[2]))"
    )
    killed = subprocess.run([sys.executable, "-c", code, shards.folder, tmp_path / "scratch"])
    assert killed.returncode == -9
    assert (np.asarray(open_pixels(shards, tmp_path / "scratch")) == PICTURES).all()


def test_other_pictures_have_another_map(shards: Shards, tmp_path: Path) -> None:
    open_pixels(shards, tmp_path / "scratch")
    rows = [dict(zip(shards.rows, values, strict=True)) for values in zip(*shards.rows.values(), strict=True)]
    write_index(shards.folder / "index.parquet", rows[::-1])
    fresh = Shards(shards.folder, shards.manifest)
    assert (np.asarray(open_pixels(fresh, tmp_path / "scratch")) == PICTURES[::-1]).all()
