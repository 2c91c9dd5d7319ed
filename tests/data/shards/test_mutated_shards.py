"""Damaged tars and indexes: every image is read as it was written, or an error names the file; nothing else."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import mutations
import numpy as np
import pytest
import small_shards

from pipeline.data.shards.index import Shards, open_shards
from pipeline.data.shards.read import TarReader


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Shards:
    folder = tmp_path_factory.mktemp("mutated")
    with pytest.MonkeyPatch.context() as patch:
        small_shards.work_inline(patch)
        return small_shards.written(small_shards.plan_of(small_shards.draw(folder / "raw", 12)), folder / "shards")


def pixels_of(shards: Shards) -> np.ndarray:
    out = np.zeros((len(shards.rows["key"]), shards.size, shards.size, 3), dtype=np.uint8)
    for _ in TarReader(shards).blocks(out):
        pass
    return out


def damage(path: Path, data: bytes, rng: random.Random) -> None:
    """Flip bits, cut the file, move its content, or put a folder, another file or nothing in its place."""
    kind = rng.randrange(6)
    if kind == 0:
        path.unlink()
        path.mkdir()
    elif kind == 1:
        path.unlink()
    elif kind == 2:
        changed = bytearray(data)
        for _ in range(rng.randint(1, 20)):
            changed[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        path.write_bytes(changed)
    elif kind == 3:
        path.write_bytes(bytes(rng.randrange(1, 600)) + data)
    else:
        path.write_bytes(mutations.damaged(data, rng))


@pytest.mark.parametrize("kind", ["tar"])
def test_damaged_shards_are_read_right_or_named(kind: str, shards: Shards, tmp_path: Path) -> None:
    whole, rng = pixels_of(shards), random.Random(mutations.SEED)
    tars = sorted(path.name for path in shards.folder.glob("*.tar"))
    read = refused = 0
    for _ in range(mutations.count(150)):
        copied = tmp_path / shards.folder.name
        shutil.copytree(shards.folder, copied)
        path = copied / (rng.choice(tars) if kind == "tar" else "index.parquet")
        damage(path, path.read_bytes(), rng)
        found = mutations.read_or_refused(lambda folder=copied: pixels_of(open_shards(folder)), path.name)
        if found is None:
            refused += 1
        else:
            assert np.array_equal(found, whole)
            read += 1
        shutil.rmtree(copied)
    assert refused > 50 and (read or kind == "index")
