"""Decode the images of shards once, to a uint8 memory map on node-local scratch that all runs of the node share.

A map is keyed by the index's checksum, which covers every stored image, and by the decoder. The first process that
needs a map builds it while others wait. An open map is kept by a shared lock; all others may be deleted at any time.
Next to a map are the checksums of its blocks. Some are compared when it is opened, and some while it is read.
A map counts as page cache, which the kernel takes back when memory is short.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import math
import os
import random
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np

from pipeline.core import disks, files, seals
from pipeline.core.console import progress
from pipeline.data import images, scratch, staged
from pipeline.data.scratch import NoRoom, sums_of
from pipeline.data.shards.index import Shards
from pipeline.data.shards.read import TarReader
from pipeline.runs.cluster import Cluster

DECODED = "each image is decoded whenever it is needed"
IN_MEMORY = ("tmpfs", "ramfs")  # file systems
BLOCK = 1 << 20  # bytes with a checksum of their own
CHECKED_AT_OPENING = 256  # blocks: all of a small map, a random choice of a large one
CHECKED_SHARE = 1 / 1000  # of the bytes that are read; a checksum takes four times as long as a copy


class DamagedMap(seals.Damaged):
    """A map is not what was decoded; it is deleted. Whoever has read it must not keep what it made of it."""


_damaged: set[Path] = set()  # maps of other users that this process found damaged and may not delete


class PixelMap:
    """A complete pixel map: uint8 [n, side, side, 3]. The memory map keeps its file open, and so its lock."""

    def __init__(self, path: Path, file: IO[bytes], side: int, sums: list[int]) -> None:
        self.path = path
        self.side = side
        self.pixels = np.memmap(file, dtype=np.uint8, mode="r").reshape(-1, side, side, 3)
        self._flat = self.pixels.reshape(-1)
        self._sums = sums
        self._blocks = _in_random_order(len(sums))
        self._due = 0.0  # blocks that are to be checked
        self._due_each = side**2 * 3 * CHECKED_SHARE / BLOCK

    def __len__(self) -> int:
        return len(self.pixels)

    def note_read(self, images: int) -> None:
        """Check a random block now and then, as images are read; raises `DamagedMap`."""
        self._due += images * self._due_each
        while self._due >= 1:
            self._due -= 1
            self.check(next(self._blocks))

    def check(self, block: int) -> None:
        """Compare the checksum of a block; raises `DamagedMap` and deletes the map where it differs."""
        if checksum(self._flat, block) != self._sums[block]:
            raise _discard(self.path)

    def check_at_opening(self) -> None:
        for block in itertools.islice(self._blocks, min(len(self._sums), CHECKED_AT_OPENING)):
            self.check(block)


Pixels = PixelMap | TarReader
"""The images of shards, in the order of the index."""


def open_pixels(shards: Shards, cluster: Cluster) -> Pixels:
    """All images of the shards, from their map on the cluster's scratch; from the tars if no map is possible.

    Maps take up to `scratch_gb` and leave a twentieth of the disk free; the least recently used one is deleted first.
    Raises `ValueError` that names tar and key if a tar's bytes are not those in the index, and `DamagedMap` if there is
    a map that is not what was decoded: it is deleted, and the next call builds it again.
    """
    folder = cluster.scratch_folder
    index = shards.index_checksum[:12]
    path = folder / f"{shards.name}-{shards.size}-{index}-{images.stored_decoder()}.u8"
    path = _mine_if_unusable(path)  # several users may share a folder
    if (pixel_map := _open(path, shards.size)) is not None:
        return pixel_map
    tars = TarReader(shards)
    folder.mkdir(parents=True, exist_ok=True)
    if not cluster.scratch_in_ram and (kind := disks.mount_of(folder).kind) in IN_MEMORY:
        reason = f"{folder} is in memory ({kind}); give a disk, or set scratch_in_ram = true"
        return _report(tars, DECODED, reason)
    with files.lock(path.with_suffix(".lock"), patience=3600, what=str(path)):
        if (pixel_map := _open(path, tars.side)) is None:
            delete(path)  # of earlier code, which wrote no checksums, or short
            files.remove_temporaries(folder, path.name)
            try:
                _build(path, tars, cluster.scratch_gb * 1e9)
            except NoRoom as error:
                return _without_map(tars, cluster, f"no room in {folder}: {error}")
            pixel_map = _open(path, tars.side)
    assert pixel_map is not None
    return pixel_map


def _in_random_order(count: int) -> Iterator[int]:
    """The numbers below `count`, again and again, each round in another order; every process has orders of its own."""
    order, chance = list(range(count)), random.SystemRandom()
    while True:
        chance.shuffle(order)
        yield from order


def checksum(flat: np.ndarray, block: int) -> int:
    """CRC-32 of a block of a map's bytes uint8 [n]: the fastest checksum of the standard library (decision 17)."""
    return zlib.crc32(flat[block * BLOCK : (block + 1) * BLOCK].data)


def check_whole(path: Path) -> bool:
    """Compare every block of a map with its checksum; False where there are none. Raises as `PixelMap.check`."""
    if not sums_of(path).exists():
        return False
    with open(path, "rb") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        sums = read_sums(path)
        if sums is None:
            raise _discard(path)
        flat = np.memmap(file, dtype=np.uint8, mode="r")
        if any(checksum(flat, block) != known for block, known in enumerate(sums)):
            raise _discard(path)
    return True


def _discard(path: Path) -> DamagedMap:
    """Delete a map; returns the error to raise."""
    _damaged.add(path)
    delete(path)
    return DamagedMap(
        f"the decoded images in {path} were changed after they were written; they are deleted, and whoever needs them "
        "next decodes them again"
    )


def delete(path: Path) -> None:
    """Delete a map with its checksums; one of another user in a sticky folder stays."""
    with contextlib.suppress(PermissionError):
        path.unlink(missing_ok=True)
        sums_of(path).unlink(missing_ok=True)


def read_sums(path: Path) -> list[int] | None:
    """The checksums of a map's blocks; None where there are none, or they are damaged or not of a map of its size."""
    with contextlib.suppress(OSError, ValueError, KeyError):
        value = seals.read_sealed(sums_of(path))
        if seals.seals_of(value) and value["bytes"] == path.stat().st_size:
            sums: list[int] = value["crc32"]
            return sums
    return None


def _mine_if_unusable(path: Path) -> Path:
    """`path`; or a name next to it for this user alone, where `path` is another user's and of no use."""
    own = path.with_name(f"{path.stem}-{os.geteuid()}{path.suffix}")
    if files.own_if_unreadable(path) != path:
        return own
    theirs = path.exists() and path.stat().st_uid != os.geteuid()
    return own if theirs and (path in _damaged or read_sums(path) is None) else path


def _without_map(tars: TarReader, cluster: Cluster, reason: str) -> TarReader:
    """The images from a copy of the tars on scratch if these lie far away, or from where they are."""
    what = DECODED
    if staged.is_far(tars):
        try:
            tars = staged.open_staged(tars, cluster)
            what = f"{what}, from a copy of the tars on scratch"
        except NoRoom as error:
            reason = f"{reason}, and for a copy of the tars {error}"
            what = f"{what}, and read ahead of need" if tars.address else what
    return _report(tars, what, reason)


def _report(tars: TarReader, what: str, reason: str) -> TarReader:
    print(f"no pixel map, {what}: {reason}", file=sys.stderr, flush=True)
    return tars


def _open(path: Path, side: int) -> PixelMap | None:
    """The map at `path`, locked against deletion and marked as used now; None if there is none with checksums."""
    with contextlib.suppress(FileNotFoundError), open(path, "rb") as file:
        fcntl.flock(file, fcntl.LOCK_SH)  # a file that was deleted before the lock stays whole while it is open
        if (sums := read_sums(path)) is None:
            return None
        with contextlib.suppress(OSError):  # the file of another user
            os.utime(file.fileno())
        found = PixelMap(path, file, side, sums)
        found.check_at_opening()
        return found
    return None


def _build(path: Path, tars: TarReader, max_bytes: float) -> None:
    """Decode all images with all cores; disk space is allocated first, so that a full disk is an error and no crash."""
    shape = (len(tars), tars.side, tars.side, 3)
    with files.publish(path, "w+b") as file:
        scratch.allocate(file, path.parent, math.prod(shape), max_bytes)
        out = np.memmap(file, dtype=np.uint8, mode="r+", shape=shape)
        decoded = (1 for count in tars.blocks(out) for _ in range(count))
        for _ in progress(decoded, total=len(tars), what=f"decoding {tars.shards.name}"):
            pass
        out.flush()
        flat = out.reshape(-1)
        sums = [checksum(flat, block) for block in range(-(-len(flat) // BLOCK))]
        # before the map: the same images always have the same checksums
        files.write_json(sums_of(path), seals.sealed({"bytes": len(flat), "crc32": sums}), indent=None)
