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
from pipeline.data import folders, images
from pipeline.data.formats import files
from pipeline.data.formats.reading import Reading
from pipeline.data.shards.index import Shards, open_shards
from pipeline.data.shards.transcode import ShardSettings
from pipeline.data.workers import Workers
from pipeline.models.contents import Given

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
    remarks: tuple[str, ...] = ()
    """How grey levels came about, of what a reader of `data/formats` reads."""


def find_shards(arguments: Sequence[Path]) -> Shards | None:
    """The shards that the one argument is the folder of; None where it is something else."""
    found = [path for path in arguments if (path / "manifest.json").is_file()]
    if found and len(arguments) > 1:
        raise ValueError(f"{found[0]} is a folder of shards; give it alone")
    return open_shards(found[0]) if found else None


def find_images(arguments: Sequence[Path], settings: ShardSettings | None = None) -> list[Path]:
    """Each file named, and every file under each folder named that may be an image; none twice."""
    volumes = settings is not None and settings.reading.slices is not None

    def below(argument: Path) -> list[Path]:
        return folders.images_under(argument, volumes=volumes) if argument.is_dir() else [argument]

    found = [path for argument in arguments for path in below(argument)]
    return list(dict.fromkeys(found))


@images.or_reason
def load(
    given: Given, *, size: int, show: bool, settings: ShardSettings | None, bits: int | None, memory: int | None = None
) -> LoadedImage:
    """An image, read as `settings` say, or why it cannot be used; `bits` and `memory` as in `images.decode`."""
    source = given.source
    if not source.path.is_file():
        raise images.BadImage("is no file" if source.path.exists() else "no such file")
    reading, decode = (settings.reading, settings.decode) if settings else (Reading(), "exact")
    min_side = size if decode == "dct" else 0
    image = files.decode(
        source, reading, channels=3, min_side=min_side, size=size, memory=memory, bits=bits, check=given.has_reader
    )
    shown = None
    if show:
        sides = image.width, image.height
        scale = min(1.0, SHOWN / max(sides))
        shown = np.asarray(Image.fromarray(image.pixels).resize([max(1, round(side * scale)) for side in sides]))
    remarks = image.remarks if given.has_reader else ()
    return LoadedImage(images.resize(image.pixels, size), shown, image.peak, remarks)


def load_all(
    given: Sequence[Given], *, size: int, show: bool, settings: ShardSettings | None, bits: int | None
) -> Iterator[LoadedImage | images.BadImage]:
    """All images in their order, decoded by worker processes; one that crashes a decoder gives a `BadImage` too."""
    count = max(1, min(len(os.sched_getaffinity(0)), -(-len(given) // 16)))
    share = memory.share_of_worker(count)
    work = partial(load, size=size, show=show, settings=settings, bits=bits, memory=share)
    with Workers(count) as workers:
        yield from workers.map(work, given)
