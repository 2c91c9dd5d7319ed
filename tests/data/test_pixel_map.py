"""Pixel maps are built once, checked against the index and limited in size; a half-built one is never used."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections import namedtuple
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import seven_images
from deaths import deaths
from flips import flip
from users import as_user

from pipeline.core.disks import Mount
from pipeline.data import pixel_map
from pipeline.data.pixel_map import DamagedMap, PixelMap, open_pixels
from pipeline.data.scratch import make_room
from pipeline.data.shards.index import Shards, write_index
from pipeline.data.shards.read import TarReader
from pipeline.runs.cluster import Cluster


@pytest.fixture
def shards(tmp_path: Path) -> Shards:
    return seven_images.make_shards(tmp_path)


@pytest.fixture
def images() -> np.ndarray:
    return seven_images.IMAGES


BYTES = 7 * 12 * 12 * 3


@pytest.fixture
def site(tmp_path: Path) -> Cluster:
    return Cluster(scratch=str(tmp_path / "scratch"), scratch_in_ram=True)


def every(pixels: pixel_map.Pixels) -> np.ndarray:
    if isinstance(pixels, PixelMap):
        return np.asarray(pixels.pixels)
    out = np.zeros((len(pixels), 12, 12, 3), dtype=np.uint8)
    pixels.read(np.arange(len(pixels)), out)
    return out


def maps(site: Cluster) -> list[Path]:
    return sorted(Path(site.scratch).glob("*.u8"))


def test_the_map_holds_every_image_in_the_order_of_the_index(shards, images, site) -> None:
    pixels = open_pixels(shards, site)
    assert isinstance(pixels, PixelMap)
    assert (every(pixels) == images).all()
    with pytest.raises(ValueError, match="read-only"):
        pixels.pixels[0] = 0


def test_the_map_is_built_once(shards, images, site) -> None:
    open_pixels(shards, site)
    for tar in shards.folder.glob("*.tar"):
        tar.unlink()
    assert (every(open_pixels(shards, site)) == images).all()


def test_scratch_may_be_emptied_at_any_time(shards, images, site) -> None:
    old = open_pixels(shards, site)
    for path in Path(site.scratch).iterdir():
        path.unlink()
    assert (every(open_pixels(shards, site)) == images).all()
    assert (every(old) == images).all()


def test_a_damaged_tar_is_named_with_its_image_and_leaves_no_map(shards, site) -> None:
    tar = shards.folder / "val-000000.tar"
    data = bytearray(tar.read_bytes())
    data[shards.rows["offset"][5] + 30] ^= 1  # one bit of the sixth image
    tar.write_bytes(data)
    with pytest.raises(ValueError, match=r"val-000000\.tar: the bytes of p5 are not those that were written; copy the"):
        open_pixels(shards, site)
    assert not maps(site)


def test_a_builder_killed_half_way_leaves_no_map(shards, images, site) -> None:
    code = (
        "import os, signal, sys; from pathlib import Path; from pipeline.data import images, pixel_map\n"
        "from pipeline.runs.cluster import Cluster\n"
        "from pipeline.data.shards.index import Shards; real, left = images.decode_stored, [4]\n"
        "def decode_stored(*given):\n"
        "    left[0] -= 1\n"
        "    if not left[0]: os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return real(*given)\n"
        "images.decode_stored = decode_stored\n"
        "shards = Shards(Path(sys.argv[1]), {'name': 'mine', 'settings': {'size': 12}})\n"
        "pixel_map.open_pixels(shards, Cluster(scratch=sys.argv[2], scratch_in_ram=True))"
    )
    killed = subprocess.run([sys.executable, "-c", code, shards.folder, site.scratch])
    assert killed.returncode == -9
    assert not maps(site) and list(Path(site.scratch).glob(".*.tmp"))
    assert (every(open_pixels(shards, site)) == images).all()
    assert not list(Path(site.scratch).glob(".*.tmp"))


def test_other_images_have_another_map(shards, images, site) -> None:
    open_pixels(shards, site)
    assert (every(open_pixels(reversed_(shards), site)) == images[::-1]).all()


def reversed_(shards: Shards) -> Shards:
    """The same images, and from now on an index of the other order: another map."""
    rows = [dict(zip(shards.rows, values, strict=True)) for values in zip(*shards.rows.values(), strict=True)]
    write_index(shards.folder / "index.parquet", rows[::-1])
    return Shards(shards.folder, shards.manifest)


def test_another_decoder_has_another_map(shards, site, monkeypatch) -> None:
    open_pixels(shards, site)
    monkeypatch.setattr(pixel_map.images, "stored_decoder", lambda: "other-1.0")
    open_pixels(shards, site)
    assert len(maps(site)) == 2


def test_an_unused_map_makes_room_and_an_open_one_never_does(shards, images, site, capsys) -> None:
    small = replace(site, scratch_gb=1.5 * BYTES / 1e9)
    held = open_pixels(shards, small)
    (path,) = maps(site)
    later = reversed_(shards)
    assert isinstance(open_pixels(later, small), TarReader)
    assert "no pixel map" in capsys.readouterr().err
    assert maps(site) == [path] and (every(held) == images).all()
    del held
    assert isinstance(open_pixels(later, small), PixelMap)
    assert len(maps(site)) == 1 and maps(site) != [path]


def test_the_checksums_of_a_deleted_map_are_deleted_too(shards, site) -> None:
    open_pixels(shards, site)
    (path,) = maps(site)
    assert pixel_map.sums_of(path).exists()
    open_pixels(reversed_(shards), replace(site, scratch_gb=1.5 * BYTES / 1e9))
    assert not path.exists() and not pixel_map.sums_of(path).exists()


@pytest.mark.parametrize("byte", [0, 1000, BYTES - 1])
def test_a_changed_map_is_found_when_it_is_opened_and_built_again(shards, images, site, byte) -> None:
    open_pixels(shards, site)
    (path,) = maps(site)
    flip(path, 8 * byte + 3)
    with pytest.raises(DamagedMap, match=r"\.u8 were changed after they were written; they are deleted"):
        open_pixels(shards, site)
    assert not maps(site)
    assert (every(open_pixels(shards, site)) == images).all()


@pytest.mark.parametrize("length", [0, 7, BYTES - 1, BYTES + 12 * 12 * 3])
def test_a_map_of_another_length_is_built_again(shards, images, site, length) -> None:
    open_pixels(shards, site)
    (path,) = maps(site)
    os.truncate(path, length)
    assert (every(open_pixels(shards, site)) == images).all()


@pytest.mark.parametrize("content", [None, b"", b"{}", b"[]", b'{"bytes": 3024, "crc32": [0]}', b"\xff"])
def test_a_map_without_its_checksums_is_built_again(shards, images, site, content) -> None:
    """Of earlier code, or their file is damaged: whether the map is whole is not known."""
    open_pixels(shards, site)
    (path,) = maps(site)
    flip(path, 80)
    sums = pixel_map.sums_of(path)
    whole = sums.read_bytes()
    sums.unlink() if content is None else sums.write_bytes(content)
    assert (every(open_pixels(shards, site)) == images).all()
    assert sums.read_bytes() == whole


def test_a_change_while_a_large_map_is_read_is_found(shards, site, monkeypatch) -> None:
    monkeypatch.setattr(pixel_map, "BLOCK", 100)
    monkeypatch.setattr(pixel_map, "CHECKED_AT_OPENING", 3)
    pixels = open_pixels(shards, site)
    (path,) = maps(site)
    flip(path, 8 * 2000)
    found = 0
    with pytest.raises(DamagedMap):
        for _ in range(40_000):  # each block is compared once in 31 checks, a check takes 233 images
            pixels.note_read(7)
            found += 1
    assert 0 < found and not maps(site)
    assert found <= 2 * 31 * 233 / 7 + 1


def test_a_builder_killed_at_any_place_leaves_a_map_with_its_checksums_or_none(shards, images, site) -> None:
    Path(site.scratch).mkdir(parents=True)
    kills = []
    for number in deaths(lambda: open_pixels(shards, site)):
        kills.append(number)
        assert all(pixel_map.sums_of(path).exists() for path in maps(site))
        assert (every(open_pixels(shards, site)) == images).all()
        for path in Path(site.scratch).iterdir():
            path.unlink()
    assert len(kills) >= 6


def test_the_least_recently_used_map_is_deleted_first(shards, site, monkeypatch) -> None:
    open_pixels(shards, site)
    monkeypatch.setattr(pixel_map.images, "stored_decoder", lambda: "other-1.0")
    open_pixels(shards, site)
    (other,) = (path for path in maps(site) if "other" in path.name)
    os.utime(other, (1, 1))
    monkeypatch.setattr(pixel_map.images, "stored_decoder", lambda: "third-1.0")
    open_pixels(shards, replace(site, scratch_gb=2.5 * BYTES / 1e9))
    assert len(maps(site)) == 2 and not other.exists()


def test_without_disk_space_images_are_decoded_when_they_are_needed(shards, images, site, monkeypatch, capsys) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("pipeline.data.scratch.shutil.disk_usage", lambda path: usage(10**6, 10**6 - 51_000, 51_000))
    pixels = open_pixels(shards, site)
    assert isinstance(pixels, TarReader) and (every(pixels) == images).all()
    assert "no room" in capsys.readouterr().err
    assert not maps(site)


def test_scratch_in_memory_is_not_used_unless_asked(shards, images, site, monkeypatch, capsys) -> None:
    monkeypatch.setattr(pixel_map.disks, "mount_of", lambda path: Mount("/", "tmpfs"))
    pixels = open_pixels(shards, replace(site, scratch_in_ram=False))
    assert isinstance(pixels, TarReader) and (every(pixels) == images).all()
    assert "is in memory (tmpfs)" in capsys.readouterr().err
    assert isinstance(open_pixels(shards, site), PixelMap)


@pytest.mark.filterwarnings("ignore:This process")
def test_two_users_share_a_scratch_that_is_sticky(shards, tmp_path):
    """The first one's umask hides the map from the second one, who makes another; a map that can be read is shared."""
    if os.geteuid() != 0:
        pytest.skip("acting as two users needs root")
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        os.chmod(folder, 0o755)
        raw = Path(folder) / "shards"
        shutil.copytree(shards.folder, raw / shards.folder.name)
        for path in (raw, *raw.rglob("*")):
            path.chmod(0o755)
        scratch = Path(folder) / "scratch"
        scratch.mkdir()
        scratch.chmod(0o1777)
        site = Cluster(scratch=str(scratch), scratch_in_ram=True)
        copy = Shards(raw / shards.folder.name, shards.manifest)
        open_pixels(shards, Cluster(scratch=str(tmp_path / "mine"), scratch_in_ram=True))  # imports what it needs

        def read() -> None:
            assert isinstance(pixels := open_pixels(copy, site), PixelMap) and len(pixels) == 7

        def made() -> list[str]:
            return sorted(path.stem.rpartition("-")[2] for path in scratch.glob("*.u8"))

        assert as_user(12345, read) == "" and len(made()) == 1
        assert as_user(12346, read) == "" and len(made()) == 2 and "12346" in made()
        for path in scratch.glob("*"):
            path.chmod(0o644)
        assert as_user(12347, read) == "" and len(made()) == 2
        assert as_user(12347, lambda: make_room(scratch, 0, 1.0)).startswith("NoRoom: ")
        assert len(made()) == 2
        for path in scratch.glob("*.sums"):  # what may not be deleted and is of no use is made next to it
            path.unlink()
        assert as_user(12347, read) == "" and len(made()) == 3 and "12347" in made()
