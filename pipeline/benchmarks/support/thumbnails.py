"""Drawn thumbnails with as many twins as a careless collection has, for measuring the search for them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from pipeline.core import files
from pipeline.core.seeds import derive
from pipeline.data.sketches import BASIS, SIDE

BLANK, CLUMP, CHAINS = 0.003, 0.002, 0.3  # of the images: equal, all alike, in chains of 2 to 20 alike
BLOCK = 4000


def write(path: Path, count: int) -> None:
    """Publish uint8 [count, SIDE, SIDE] in a random order as `.npy`; the same count gives the same bytes."""
    rng = np.random.default_rng(derive("thumbnails", count))
    order = rng.permutation(count)
    out, at = np.empty((count, SIDE, SIDE), np.uint8), 0
    for block in _blocks(rng, count):
        out[order[at : at + len(block)]] = np.rint(block.clip(0, 255))
        at += len(block)
    with files.publish(path) as file:
        np.save(file, out)


def _blocks(rng: np.random.Generator, count: int) -> Iterator[np.ndarray]:
    """Blocks of grey values, `count` images together."""
    blank, clump, chained = (int(share * count) for share in (BLANK, CLUMP, CHAINS))
    yield np.full((blank, SIDE, SIDE), 90.0)
    base = _draw(rng, 1)
    for size in _sizes(clump):
        yield base + rng.normal(0, 2, (size, SIDE, SIDE))
    for size in _sizes(chained):
        of = np.repeat(np.arange(size), rng.integers(2, 21, size))[:size]
        images = _draw(rng, int(of[-1]) + 1)[of] + rng.normal(0, 1.5, (size, SIDE, SIDE))
        images = images * rng.uniform(0.8, 1.1, (size, 1, 1)) + rng.uniform(-10, 10, (size, 1, 1))
        images[::5] = images[::5, :, ::-1]  # mirrored
        yield images
    for size in _sizes(count - blank - clump - chained):
        yield _draw(rng, size)


def _sizes(count: int) -> Iterator[int]:
    return (min(BLOCK, count - start) for start in range(0, count, BLOCK))


def _draw(rng: np.random.Generator, count: int) -> np.ndarray:
    """Images whose frequencies are as strong as those of photographs: their power falls with the third power."""
    vertical, horizontal = np.mgrid[:SIDE, :SIDE]
    strength = 600 / np.maximum(np.hypot(vertical, horizontal), 1) ** 1.5
    out: np.ndarray = BASIS.T @ (rng.standard_normal((count, SIDE, SIDE)) * strength) @ BASIS + 120
    return out
