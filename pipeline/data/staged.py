"""A copy of the stored images of shards on scratch, for shards that lie far away and whose pixel map does not fit.

It holds the images' bytes in the order of the index, each compared with its checksum when it is copied and whenever it
is read; one that was changed is deleted. As a pixel map it is made once for all jobs of a node, kept by whoever has it
open, and deleted to make room.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import weakref
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pipeline.core import disks, files, seals
from pipeline.core.console import progress
from pipeline.data import scratch
from pipeline.data.shards.index import Shards
from pipeline.data.shards.read import TarReader
from pipeline.runs.cluster import Cluster

NETWORK = (
    "nfs",
    "nfs4",
    "lustre",
    "gpfs",
    "beegfs",
    "ceph",
    "glusterfs",
    "cifs",
    "smb3",
    "afs",
    "9p",
    "panfs",
    "wekafs",
)
"""File systems of other machines; those of FUSE may be too."""
AHEAD = 512  # images that are read before they are written


class DamagedCopy(seals.Damaged):
    """A copy is not what was copied; it is deleted. Nothing was made of what was changed."""


_of_others: set[Path] = set()  # damaged copies that this process may not delete


class Staged:
    """The copy at `path`, which is complete; it is kept as long as this lives."""

    def __init__(self, path: Path, shards: Shards, ends: np.ndarray) -> None:
        self.path = path
        self.rows = shards.rows
        self.ends = ends
        self.file = open(path, "rb", buffering=0)  # noqa: SIM115  closed with this
        weakref.finalize(self, self.file.close)
        fcntl.flock(self.file, fcntl.LOCK_SH)

    def expect(self, rows: Sequence[int] | np.ndarray) -> None:
        pass

    def bytes_of(self, row: int) -> bytes:
        size = self.rows["size"][row]
        return os.pread(self.file.fileno(), size, int(self.ends[row]) - size)

    def name_of(self, row: int) -> str:
        return str(self.path)

    def discard(self) -> None:
        """Delete the copy, unless it is made again already."""
        try:
            if os.path.samestat(self.path.stat(), os.fstat(self.file.fileno())):
                self.path.unlink()
        except FileNotFoundError:
            pass
        except PermissionError:
            _of_others.add(self.path)


class StagedReader(TarReader):
    """The images of shards from a copy; raises `DamagedCopy` where it was changed."""

    source: Staged

    def checked_bytes(self, row: int) -> bytes:
        try:
            return super().checked_bytes(row)
        except seals.Damaged:
            self.source.discard()
            raise DamagedCopy(
                f"{self.source.path}: the bytes of {self.shards.rows['key'][row]} were changed after they were copied; "
                "the copy is deleted, and whoever needs it next makes it again"
            ) from None


def is_far(tars: TarReader) -> bool:
    """Whether the tars are behind an address or on the disk of another machine."""
    kind = disks.mount_of(tars.shards.folder).kind
    return tars.address is not None or kind in NETWORK or kind.startswith("fuse.")


def open_staged(tars: TarReader, cluster: Cluster) -> TarReader:
    """A reader of the copy on the cluster's scratch, which is made if there is none; raises `scratch.NoRoom`.

    Raises `ValueError` that names tar and key if a tar's bytes are not those in the index.
    """
    shards = tars.shards
    ends = np.cumsum(np.from_dlpack(shards.rows["size"].array), dtype=np.int64)
    folder = cluster.scratch_folder
    path = folder / f"{shards.name}-{shards.size}-{shards.index_checksum[:12]}.images"
    path = files.own_if_unreadable(path)
    if path in _of_others:
        path = path.with_name(f"{path.stem}-{os.geteuid()}{path.suffix}")
    with files.lock(path.with_suffix(".images.lock"), patience=3600, what=str(path)):
        if (found := _open(path, shards, ends)) is None:
            files.remove_temporaries(folder, path.name)
            _copy(path, tars, int(ends[-1]), cluster.scratch_gb * 1e9)
            found = _open(path, shards, ends)
    assert found is not None
    return StagedReader(shards, found)


def _open(path: Path, shards: Shards, ends: np.ndarray) -> Staged | None:
    """The copy, marked as used now; None if there is none of the right size."""
    with contextlib.suppress(FileNotFoundError):
        found = Staged(path, shards, ends)
        if os.fstat(found.file.fileno()).st_size == ends[-1]:
            with contextlib.suppress(OSError):  # the file of another user
                os.utime(found.file.fileno())
            return found
        found.file.close()
    return None


def _copy(path: Path, tars: TarReader, size: int, max_bytes: float) -> None:
    with files.publish(path) as file:
        scratch.allocate(file, path.parent, size, max_bytes)
        rows = range(len(tars))
        for row in progress(rows, total=len(rows), what=f"copying {tars.shards.name}"):
            if row % AHEAD == 0:
                tars.expect(rows[row : row + 2 * AHEAD])
            file.write(tars.checked_bytes(row))
