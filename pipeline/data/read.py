"""Shards as pixels: decoded once into a uint8 memory map on scratch, read by row number ever after."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pipeline import files
from pipeline.data import images
from pipeline.data.index import Shards


def open_pixels(shards: Shards, scratch: Path) -> np.ndarray:
    """All pictures of the shards in the order of the index: a read-only uint8 map [n, size, size, 3].

    The map is built by the first that asks (others wait), keyed by the index's checksum, which covers every stored
    picture, and by the decoder's revision. Raises `ValueError` naming tar and key where a tar's bytes are not what
    the index says.
    """
    checksum = files.sha256_file(shards.folder / "index.parquet")[:12]
    path = scratch / f"{shards.name}-{shards.size}-{checksum}-r{images.REVISION}.u8"
    shape = (len(shards.rows["key"]), shards.size, shards.size, 3)
    if not path.exists():
        with files.lock(path.with_suffix(".lock"), patience=3600, what=str(path)):
            if not path.exists():
                files.remove_temporaries(scratch, path.name)
                _build(shards, path, shape)
    return np.memmap(path, dtype=np.uint8, mode="r", shape=shape)


def _build(shards: Shards, path: Path, shape: tuple[int, ...]) -> None:
    rows = shards.rows
    with files.publish(path) as out:
        tar, file = "", None
        try:
            for row in range(shape[0]):
                if rows["tar"][row] != tar:
                    if file is not None:
                        file.close()
                    tar = rows["tar"][row]
                    file = open(shards.folder / tar, "rb")
                assert file is not None
                file.seek(rows["offset"][row])
                data = file.read(rows["size"][row])
                out.write(np.ascontiguousarray(_decoded(shards, row, data)))
        finally:
            if file is not None:
                file.close()


def read_pixels(shards: Shards, rows: Sequence[int]) -> np.ndarray:
    """A few pictures, straight from the tars: uint8 [k, size, size, 3]; raises as `open_pixels`."""
    found = []
    for row in rows:
        with open(shards.folder / shards.rows["tar"][row], "rb") as file:
            file.seek(shards.rows["offset"][row])
            found.append(_decoded(shards, row, file.read(shards.rows["size"][row])))
    return np.stack(found) if found else np.empty((0, shards.size, shards.size, 3), dtype=np.uint8)


def _decoded(shards: Shards, row: int, data: bytes) -> np.ndarray:
    rows = shards.rows
    if files.sha256_bytes(data) != rows["sha256"][row]:
        raise ValueError(
            f"{shards.folder / rows['tar'][row]}: the bytes of {rows['key'][row]} are not those that were written; "
            "copy the shards again, or delete the folder and shard again"
        )
    return images.pixels(data)
