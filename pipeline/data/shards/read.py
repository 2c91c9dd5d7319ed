"""Read images straight from the tars: by offset, checked against the index, decoded by all cores.

simplejpeg and Pillow decode to the same bytes (both are libjpeg-turbo); simplejpeg is about four times as fast because
it writes each image to its place.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import Protocol

import numpy as np

from pipeline.core import files, seals
from pipeline.data import images
from pipeline.data.shards import remote
from pipeline.data.shards.index import MOVE, Shards

AHEAD = 4  # blocks that are read before they are decoded, where reading takes time


class Source(Protocol):
    """Where the stored bytes of images are."""

    def expect(self, rows: Sequence[int] | np.ndarray) -> None:
        """Say which images will be asked for soon."""

    def bytes_of(self, row: int) -> bytes:
        """The stored bytes of an image, which may have been changed."""

    def name_of(self, row: int) -> str:
        """What holds an image, for messages."""


class LocalTars:
    """The tars in the folder of shards."""

    def __init__(self, shards: Shards) -> None:
        self.shards = shards

    def expect(self, rows: Sequence[int] | np.ndarray) -> None:
        pass

    def bytes_of(self, row: int) -> bytes:
        rows = self.shards.rows
        with open(self.name_of(row), "rb", buffering=0) as file:
            return os.pread(file.fileno(), rows["size"][row], rows["offset"][row])

    def name_of(self, row: int) -> str:
        return str(self.shards.folder / self.shards.rows["tar"][row])


class TarReader:
    """The images of shards, decoded whenever they are read: used where there can be no pixel map."""

    def __init__(self, shards: Shards, source: Source | None = None) -> None:
        """`source`: where the bytes are, if not where the shards say."""
        self.shards = shards
        self.side = shards.size
        self.address = remote.address_of(shards)
        self.source = source or (remote.RemoteTars(shards, self.address) if self.address else LocalTars(shards))

    def __len__(self) -> int:
        return len(self.shards.rows["key"])

    def read(self, rows: Sequence[int] | np.ndarray, out: np.ndarray) -> None:
        """Decode images into out: uint8 [k, side, side, 3].

        Raises `ValueError` that names tar and key if a tar's bytes are not those in the index.
        """
        self.source.expect(rows)
        for _ in self._pool.map(self._decode, rows, out):
            pass

    def image(self, row: int) -> np.ndarray:
        """One image, decoded by the thread that asks: uint8 [side, side, 3]; raises as `read`."""
        out = np.empty((self.side, self.side, 3), dtype=np.uint8)
        self._decode(row, out)
        return out

    def expect(self, rows: Sequence[int] | np.ndarray) -> None:
        """Say which images will be read soon."""
        self.source.expect(rows)

    def blocks(self, out: np.ndarray, size: int = 64) -> Iterator[int]:
        """Decode every image into out [n, side, side, 3], several blocks at once; yields the size of each block."""

        def block(start: int) -> int:
            rows = range(start, min(start + size, len(out)))
            self.source.expect(range(start, min(start + AHEAD * size, len(out))))
            for row in rows:
                self._decode(row, out[row])
            return len(rows)

        waiting = [self._pool.submit(block, start) for start in range(0, len(out), size)]
        try:
            for future in waiting:
                yield future.result()
        finally:
            for future in waiting:
                future.cancel()

    def _decode(self, row: int, out: np.ndarray) -> None:
        images.decode_stored(self.checked_bytes(row), out)

    def checked_bytes(self, row: int) -> bytes:
        """The stored bytes of an image; `Damaged` that names tar and key if they are not those in the index."""
        data = self.source.bytes_of(row)
        rows = self.shards.rows
        if files.sha256_bytes(data) != rows["sha256"][row]:
            where = self.source.name_of(row)
            raise seals.Damaged(f"{where}: the bytes of {rows['key'][row]} are not those that were written; {MOVE}")
        return data

    @cached_property
    def _pool(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(len(os.sched_getaffinity(0)))


def read_pixels(shards: Shards, rows: Sequence[int]) -> np.ndarray:
    """A few images, straight from the tars: uint8 [k, size, size, 3]; raises as `TarReader.read` does."""
    out = np.empty((len(rows), shards.size, shards.size, 3), dtype=np.uint8)
    TarReader(shards).read(rows, out)
    return out
