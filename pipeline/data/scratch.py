"""Room on a node's scratch: what is kept there may be deleted while nobody has it open, least recently used first."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from pathlib import Path
from typing import IO

from pipeline.core import files

MIN_FREE = 0.05  # of the disk
KEPT = ("u8", "images")  # endings: pixel maps, and copies of tars


class NoRoom(Exception):
    """It does not fit."""


def sums_of(path: Path) -> Path:
    """The file with the size and the checksums of a map, next to it."""
    return path.with_suffix(".sums")


def allocate(file: IO[bytes], folder: Path, size: int, max_bytes: float) -> None:
    """Make room for a file in `folder` and take it, so that a full disk is an error now; raises `NoRoom`."""
    with files.lock(folder / ".room.lock", patience=600, what=f"making room in {folder}"):
        make_room(folder, size, max_bytes)
        try:
            os.posix_fallocate(file.fileno(), 0, size)
        except OSError as error:
            raise NoRoom(error.strerror) from error


def make_room(scratch: Path, wanted: int, max_bytes: float) -> None:
    """Delete unused files, the least recently used first, until `wanted` bytes fit; raises `NoRoom` if they do not."""
    every = [path for ending in KEPT for path in scratch.glob(f"*.{ending}")]
    every.sort(key=lambda path: path.stat().st_mtime)
    being_made = [path for ending in KEPT for path in scratch.glob(f".*.{ending}.*.tmp")]
    taken = sum(path.stat().st_size for path in [*every, *being_made])
    disk = shutil.disk_usage(scratch)
    lacking = wanted - (disk.free - int(MIN_FREE * disk.total))
    if max_bytes:
        lacking = max(lacking, int(wanted + taken - max_bytes))
    if lacking > sum(path.stat().st_size for path in every):  # then nothing is deleted in vain
        raise NoRoom(f"{lacking / 1e9:.1f} of {wanted / 1e9:.1f} GB are lacking")
    for path in every:
        if lacking <= 0:
            return
        with contextlib.suppress(PermissionError), open(path, "rb") as file:  # another user's stays
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            size = os.fstat(file.fileno()).st_size
            path.unlink()
            sums_of(path).unlink(missing_ok=True)
            lacking -= size
    if lacking > 0:
        raise NoRoom(f"{lacking / 1e9:.1f} of {wanted / 1e9:.1f} GB are lacking")
