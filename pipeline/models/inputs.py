"""New images: found, decoded and resized as sharding does.

Worker processes import this module, so it does not import torch.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from pipeline.core import memory
from pipeline.data import images
from pipeline.data.folders import images_under
from pipeline.data.shards.index import Shards, open_shards
from pipeline.data.workers import Workers

SHOWN = 512  # pixels; the longest side of an image that an attention map is drawn over


@dataclass(frozen=True)
class LoadedImage:
    """A decoded image."""

    pixels: np.ndarray
    """What the network is given: uint8 [size, size, 3]."""
    shown: np.ndarray | None
    """A copy for people, in the image's own shape, at most `SHOWN` pixels wide and high; None unless `show`."""
    peak: int | None = None
    """The greatest stored value of a 16-bit grey image."""


def find_shards(arguments: Sequence[Path]) -> Shards | None:
    """The shards that the one argument is the folder of; None where it is something else."""
    found = [path for path in arguments if (path / "manifest.json").is_file()]
    if found and len(arguments) > 1:
        raise ValueError(f"{found[0]} is a folder of shards; give it alone")
    return open_shards(found[0]) if found else None


def find_images(arguments: Sequence[Path]) -> list[Path]:
    """Each file named, and every file under each folder named that may be an image; none twice."""
    found = [path for argument in arguments for path in (images_under(argument) if argument.is_dir() else [argument])]
    return list(dict.fromkeys(found))


@images.or_reason
def load(path: Path, *, size: int, show: bool, bits: int | None = None, memory: int | None = None) -> LoadedImage:
    """One file, or why it cannot be used; `bits` and `memory` as in `images.decode`."""
    if not path.is_file():
        raise images.BadImage("is no file" if path.exists() else "no such file")
    image = images.decode(path.read_bytes(), size=size, memory=memory, bits=bits)
    shown = None
    if show:
        sides = image.width, image.height
        scale = min(1.0, SHOWN / max(sides))
        shown = np.asarray(Image.fromarray(image.pixels).resize([max(1, round(side * scale)) for side in sides]))
    return LoadedImage(images.resize(image.pixels, size), shown, image.peak)


def load_all(
    paths: Sequence[Path], *, size: int, show: bool, bits: int | None = None
) -> Iterator[LoadedImage | images.BadImage]:
    """All files in their order, decoded by worker processes; a file that crashes a decoder gives a `BadImage` too."""
    count = max(1, min(len(os.sched_getaffinity(0)), -(-len(paths) // 16)))
    work = partial(load, size=size, show=show, bits=bits, memory=memory.share_of_worker(count))
    with Workers(count) as workers:
        yield from workers.map(work, paths)
