"""Images decoded once: a uint8 memory map on node-local scratch, shared by every run and trial of the node.

A map is keyed by the index's checksum, which covers every stored image, and by the decoder. It is built by the first
that needs it while others wait; an open one is kept by a shared lock, the others may be deleted at any time. Peak
memory is the page cache's: the map belongs to the kernel, which takes it back when it is short.
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

from pipeline.core import files
from pipeline.core.console import progress
from pipeline.data import images
from pipeline.data.shards.index import Shards
from pipeline.data.shards.read import Tars
from pipeline.runs.cluster import Cluster

LEFT_FREE = 0.05  # of the disk
IN_RAM = ("tmpfs", "ramfs")


class NoRoom(Exception):
    """A map does not fit."""


class Map:
    """A whole pixel map: uint8 [n, side, side, 3]. The memory map keeps its file open, and thus its lock."""

    def __init__(self, file: IO[bytes], side: int) -> None:
        self.side = side
        self.pixels = np.memmap(file, dtype=np.uint8, mode="r").reshape(-1, side, side, 3)

    def __len__(self) -> int:
        return len(self.pixels)


Pixels = Map | Tars
"""The images of shards in the order of the index."""


def open_pixels(shards: Shards, cluster: Cluster) -> Pixels:
    """All images of the shards, from their map on the cluster's scratch; where there can be none, from the tars.

    Maps may take `scratch_gb` and leave a twentieth of the disk free; the one used least lately goes first. Raises
    `ValueError` naming tar and key where a tar's bytes are not what the index says.
    """
    scratch = Path(cluster.scratch)
    checksum = files.sha256_file(shards.folder / "index.parquet")[:12]
    path = scratch / f"{shards.name}-{shards.size}-{checksum}-{images.decoder()}.u8"
    if (found := _open(path, shards.size)) is not None:
        return found
    tars = Tars(shards)
    scratch.mkdir(parents=True, exist_ok=True)
    if not cluster.scratch_in_ram and (kind := file_system(scratch)) in IN_RAM:
        return _without(tars, f"{scratch} lies in memory ({kind}); name a disk, or set scratch_in_ram = true")
    with files.lock(path.with_suffix(".lock"), patience=3600, what=str(path)):
        if (found := _open(path, tars.side)) is None:
            files.remove_temporaries(scratch, path.name)
            try:
                _build(path, tars, cluster.scratch_gb * 1e9)
            except NoRoom as error:
                return _without(tars, f"no room in {scratch}: {error}")
            found = _open(path, tars.side)
    assert found is not None
    return found


def _without(tars: Tars, reason: str) -> Tars:
    print(f"no pixel map, each image is decoded whenever it is needed: {reason}", file=sys.stderr, flush=True)
    return tars


def _open(path: Path, side: int) -> Map | None:
    """The map at `path`, locked against deletion and marked as used now, or None."""
    with contextlib.suppress(FileNotFoundError), open(path, "rb") as file:
        fcntl.flock(file, fcntl.LOCK_SH)  # a file deleted meanwhile stays whole as long as it is open
        with contextlib.suppress(OSError):  # another user's
            os.utime(file.fileno())
        return Map(file, side)
    return None


def _build(path: Path, tars: Tars, most_bytes: float) -> None:
    """Decode all images with all cores; the room is taken first, so that a full disk is an error and no crash."""
    shape = (len(tars), tars.side, tars.side, 3)
    with files.publish(path, "w+b") as file:
        with files.lock(path.parent / ".room.lock", patience=600, what=f"making room in {path.parent}"):
            _make_room(path.parent, math.prod(shape), most_bytes)
            try:
                os.posix_fallocate(file.fileno(), 0, math.prod(shape))
            except OSError as error:
                raise NoRoom(error.strerror) from error
        out = np.memmap(file, dtype=np.uint8, mode="r+", shape=shape)
        each = (1 for count in tars.blocks(out) for _ in range(count))
        for _ in progress(each, total=len(tars), what=f"decoding {tars.shards.name}"):
            pass
        out.flush()


def _make_room(scratch: Path, wanted: int, most_bytes: float) -> None:
    """Delete the maps used least lately that nobody has open until `wanted` bytes fit; `NoRoom` when they do not."""
    maps = sorted(scratch.glob("*.u8"), key=lambda path: path.stat().st_mtime)
    taken = sum(path.stat().st_size for path in [*maps, *scratch.glob(".*.u8.*.tmp")])
    disk = shutil.disk_usage(scratch)
    lacking = wanted - (disk.free - int(LEFT_FREE * disk.total))
    if most_bytes:
        lacking = max(lacking, int(wanted + taken - most_bytes))
    for path in maps:
        if lacking <= 0:
            return
        with open(path, "rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            lacking -= os.fstat(file.fileno()).st_size
            path.unlink()
    if lacking > 0:
        raise NoRoom(f"{lacking / 1e9:.1f} of {wanted / 1e9:.1f} GB are lacking")


def file_system(path: Path) -> str:
    """The kind of the file system that holds `path`: `ext4`, `tmpfs`; empty where the system does not tell."""
    try:
        lines = Path("/proc/self/mounts").read_text().splitlines()
    except OSError:
        return ""
    real, best, kind = str(path.resolve()), "", ""
    for line in lines:
        _, point, found, *_ = line.split(" ")
        point = point.replace("\\040", " ")
        if len(point) >= len(best) and (real + "/").startswith(point.rstrip("/") + "/"):
            best, kind = point, found
    return kind
