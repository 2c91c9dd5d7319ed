"""Images straight from the tars: read by offset, checked against the index, decoded by all cores.

Decoding gives the same bytes with simplejpeg as with Pillow (both are libjpeg-turbo); simplejpeg is some four times
faster, since it writes each image where it belongs.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property

import numpy as np

from pipeline.core import files
from pipeline.data import images
from pipeline.data.shards.index import Shards


class Tars:
    """The images of shards, decoded whenever they are asked for: what stands in where the pixel map cannot be."""

    def __init__(self, shards: Shards) -> None:
        self.shards = shards
        self.side = shards.size

    def __len__(self) -> int:
        return len(self.shards.rows["key"])

    def read(self, rows: Sequence[int] | np.ndarray, out: np.ndarray) -> None:
        """Decode images into out: uint8 [k, side, side, 3].

        Raises `ValueError` naming tar and key where a tar's bytes are not what the index says.
        """
        for _ in self._pool.map(self._decode, rows, out):
            pass

    def blocks(self, out: np.ndarray, each: int = 64) -> Iterator[int]:
        """Decode every image into out [n, side, side, 3], block by block at once; yields how many each block had."""

        def block(start: int) -> int:
            rows = range(start, min(start + each, len(out)))
            for row in rows:
                self._decode(row, out[row])
            return len(rows)

        waiting = [self._pool.submit(block, start) for start in range(0, len(out), each)]
        try:
            for future in waiting:
                yield future.result()
        finally:
            for future in waiting:
                future.cancel()

    def _decode(self, row: int, out: np.ndarray) -> None:
        rows = self.shards.rows
        path = self.shards.folder / rows["tar"][row]
        with open(path, "rb", buffering=0) as file:
            data = os.pread(file.fileno(), rows["size"][row], rows["offset"][row])
        if files.sha256_bytes(data) != rows["sha256"][row]:
            raise ValueError(
                f"{path}: the bytes of {rows['key'][row]} are not those that were written; "
                "copy the shards again, or delete the folder and shard again"
            )
        images.pixels(data, out)

    @cached_property
    def _pool(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(len(os.sched_getaffinity(0)))


def read_pixels(shards: Shards, rows: Sequence[int]) -> np.ndarray:
    """A few images, straight from the tars: uint8 [k, size, size, 3]; raises as `Tars.read`."""
    out = np.empty((len(rows), shards.size, shards.size, 3), dtype=np.uint8)
    Tars(shards).read(rows, out)
    return out
