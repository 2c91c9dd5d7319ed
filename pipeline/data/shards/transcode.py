"""Transcode a raw file to its stored form: all that a sharding worker does, and so all that it imports."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.core import files
from pipeline.data import images

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True, kw_only=True)
class ShardSettings:
    """How images are stored. Names, order and values of the fields are hashed into the dataset's fingerprint.

    Raises `ValueError` for values that no shards can have.
    """

    size: int
    """Side in pixels."""
    split: str
    """`image` or `grouped`."""
    format: str
    quality: int | None
    keep_names: bool
    decode: str = "exact"
    """`dct`: large JPEGs are decoded at a fraction of their size, faster and less exactly."""

    def __post_init__(self) -> None:
        if not 8 <= self.size <= 4096:
            raise ValueError(f"--size is {self.size}; give a side between 8 and 4096 pixels")
        if self.quality is not None and not 1 <= self.quality <= 100:
            raise ValueError(f"--quality is {self.quality}; give a number from 1 to 100")
        if self.quality is not None and self.format == "png":
            raise ValueError("--quality does not go with --format png, which is lossless; omit it")


def transcode(task: tuple[Path, str, ShardSettings]) -> tuple[bytes, int, int] | images.BadImage:
    """Decode, resize and encode a raw file; the task is its path, its expected SHA-256 and the settings.

    Returns the stored bytes and the width and height of the raw image in pixels, or why it cannot be used.
    """
    path, checksum, settings = task
    try:
        raw = path.read_bytes()
        if files.sha256_bytes(raw) != checksum:
            return images.BadImage("changed while the dataset was sharded; shard it again")
        min_side = settings.size if settings.decode == "dct" else 0
        image = images.decode(raw, min_side=min_side, channels=4)
        small = images.resize(image.pixels, settings.size)
        data = images.encode(small, format=settings.format, quality=settings.quality)
        return data, image.width, image.height
    except images.BadImage as error:
        return error
    except OSError as error:
        return images.BadImage(f"cannot be read: {error.strerror}")


def raw_thumbnail(path: Path) -> np.ndarray | images.BadImage:
    """The thumbnail of a raw file for `data/twins`, decoded as small as its format allows; or why there is none."""
    from pipeline.data import twins

    try:
        return twins.thumbnail(images.decode(path.read_bytes(), min_side=2 * twins.SIDE, channels=3).pixels)
    except images.BadImage as error:
        return error
    except OSError as error:
        return images.BadImage(f"cannot be read: {error.strerror}")
