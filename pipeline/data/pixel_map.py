"""Decode the images of shards once, to a uint8 memory map on node-local scratch that all runs of the node share.

A map is keyed by the index's checksum, which covers every stored image, and by the decoder. The first process that
needs a map builds it while others wait. An open map is kept by a shared lock; all others may be deleted at any time.
A map counts as page cache, which the kernel takes back when memory is short.
"""

from __future__ import annotations

import contextlib
import fcntl
import math
import os
import shutil
import sys
from pathlib import Path
from typing import IO

import numpy as np

from pipeline.core import disks, files
from pipeline.core.console import progress
from pipeline.data import images
from pipeline.data.shards.index import Shards
from pipeline.data.shards.read import TarReader
from pipeline.runs.cluster import Cluster

MIN_FREE = 0.05  # of the disk
IN_MEMORY = ("tmpfs", "ramfs")  # file systems


class NoRoom(Exception):
    """A map does not fit."""


class PixelMap:
    """A complete pixel map: uint8 [n, side, side, 3]. The memory map keeps its file open, and so its lock."""

    def __init__(self, file: IO[bytes], side: int) -> None:
        self.side = side
        self.pixels = np.memmap(file, dtype=np.uint8, mode="r").reshape(-1, side, side, 3)

    def __len__(self) -> int:
        return len(self.pixels)


Pixels = PixelMap | TarReader
"""The images of shards, in the order of the index."""


def open_pixels(shards: Shards, cluster: Cluster) -> Pixels:
    """All images of the shards, from their map on the cluster's scratch; from the tars if no map is possible.

    Maps take up to `scratch_gb` and leave a twentieth of the disk free; the least recently used one is deleted first.
    Raises `ValueError` that names tar and key if a tar's bytes are not those in the index.
    """
    scratch = Path(cluster.scratch)
    checksum = files.sha256_file(shards.folder / "index.parquet")[:12]
    path = scratch / f"{shards.name}-{shards.size}-{checksum}-{images.stored_decoder()}.u8"
    path = files.own_if_unreadable(path)  # several users may share a scratch
    if (pixel_map := _open(path, shards.size)) is not None:
        return pixel_map
    tars = TarReader(shards)
    scratch.mkdir(parents=True, exist_ok=True)
    if not cluster.scratch_in_ram and (kind := disks.mount_of(scratch).kind) in IN_MEMORY:
        return _report_no_map(tars, f"{scratch} is in memory ({kind}); give a disk, or set scratch_in_ram = true")
    with files.lock(path.with_suffix(".lock"), patience=3600, what=str(path)):
        if (pixel_map := _open(path, tars.side)) is None:
            files.remove_temporaries(scratch, path.name)
            try:
                _build(path, tars, cluster.scratch_gb * 1e9)
            except NoRoom as error:
                return _report_no_map(tars, f"no room in {scratch}: {error}")
            pixel_map = _open(path, tars.side)
    assert pixel_map is not None
    return pixel_map


def _report_no_map(tars: TarReader, reason: str) -> TarReader:
    print(f"no pixel map, each image is decoded whenever it is needed: {reason}", file=sys.stderr, flush=True)
    return tars


def _open(path: Path, side: int) -> PixelMap | None:
    """The map at `path`, locked against deletion and marked as used now; None if there is none."""
    with contextlib.suppress(FileNotFoundError), open(path, "rb") as file:
        fcntl.flock(file, fcntl.LOCK_SH)  # a file that was deleted before the lock stays whole while it is open
        with contextlib.suppress(OSError):  # the file of another user
            os.utime(file.fileno())
        return PixelMap(file, side)
    return None


def _build(path: Path, tars: TarReader, max_bytes: float) -> None:
    """Decode all images with all cores; disk space is allocated first, so that a full disk is an error and no crash."""
    shape = (len(tars), tars.side, tars.side, 3)
    with files.publish(path, "w+b") as file:
        with files.lock(path.parent / ".room.lock", patience=600, what=f"making room in {path.parent}"):
            _make_room(path.parent, math.prod(shape), max_bytes)
            try:
                os.posix_fallocate(file.fileno(), 0, math.prod(shape))
            except OSError as error:
                raise NoRoom(error.strerror) from error
        out = np.memmap(file, dtype=np.uint8, mode="r+", shape=shape)
        decoded = (1 for count in tars.blocks(out) for _ in range(count))
        for _ in progress(decoded, total=len(tars), what=f"decoding {tars.shards.name}"):
            pass
        out.flush()


def _make_room(scratch: Path, wanted: int, max_bytes: float) -> None:
    """Delete unused maps, the least recently used first, until `wanted` bytes fit; raises `NoRoom` if they never do."""
    maps = sorted(scratch.glob("*.u8"), key=lambda path: path.stat().st_mtime)
    taken = sum(path.stat().st_size for path in [*maps, *scratch.glob(".*.u8.*.tmp")])
    disk = shutil.disk_usage(scratch)
    lacking = wanted - (disk.free - int(MIN_FREE * disk.total))
    if max_bytes:
        lacking = max(lacking, int(wanted + taken - max_bytes))
    for path in maps:
        if lacking <= 0:
            return
        with contextlib.suppress(PermissionError), open(path, "rb") as file:  # another user's stays
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            size = os.fstat(file.fileno()).st_size
            path.unlink()
            lacking -= size
    if lacking > 0:
        raise NoRoom(f"{lacking / 1e9:.1f} of {wanted / 1e9:.1f} GB are lacking")
