"""Transcode a raw file to its stored form: all that a sharding worker does, and so all that it imports."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pipeline.core import files
from pipeline.data import images, members

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True, kw_only=True)
class ShardSettings:
    """How images are stored. `to_json` is hashed into the dataset's fingerprint.

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
    bits: int | None = None
    """Of the values in 16-bit grey images; None: 16, or what a TIFF says."""

    def __post_init__(self) -> None:
        if not 8 <= self.size <= 4096:
            raise ValueError(f"--size is {self.size}; give a side between 8 and 4096 pixels")
        if self.quality is not None and not 1 <= self.quality <= 100:
            raise ValueError(f"--quality is {self.quality}; give a number from 1 to 100")
        if self.quality is not None and self.format == "png":
            raise ValueError("--quality does not go with --format png, which is lossless; omit it")

        images.check_bits(self.bits)

    def to_json(self) -> dict[str, Any]:
        """The fields as manifests store them; one that came later and has its default is left out."""
        fields = asdict(self)
        if self.bits is None:
            del fields["bits"]
        return fields


class Transcoded(NamedTuple):
    """An image in its stored form."""

    data: bytes
    width: int
    """Of the raw image, in pixels."""
    height: int
    is_blank: bool
    """Whether it has one colour."""
    remarks: tuple[str, ...]
    """Harmless oddities of the raw file."""
    peak: int | None
    """The greatest value of a 16-bit grey image."""


@images.or_reason
def transcode(task: tuple[Path, str, ShardSettings], *, memory: int | None = None) -> Transcoded:
    """Decode, resize and encode a raw file, or say why it cannot be used.

    The task is its path, its expected SHA-256 and the settings. An image that needs more than `memory` bytes cannot be
    used.
    """
    path, checksum, settings = task
    raw = members.read_raw(path)
    if files.sha256_bytes(raw) != checksum:
        raise images.BadImage("changed while the dataset was sharded; shard it again")
    min_side = settings.size if settings.decode == "dct" else 0
    image = images.decode(raw, min_side=min_side, channels=4, size=settings.size, memory=memory, bits=settings.bits)
    small = images.resize(image.pixels, settings.size)
    data = images.encode(small, format=settings.format, quality=settings.quality)
    is_blank = images.is_blank(small) and images.is_blank(image.pixels)
    return Transcoded(data, image.width, image.height, is_blank, image.remarks, image.peak)


@images.or_reason
def raw_thumbnail(path: Path, *, settings: ShardSettings, memory: int | None = None) -> np.ndarray:
    """The thumbnail of a raw file for `data/twins`, decoded as small as its format allows; or why there is none."""
    from pipeline.data import sketches, twins

    side = 2 * sketches.SIDE
    image = images.decode(members.read_raw(path), min_side=side, size=side, memory=memory, bits=settings.bits)
    return twins.thumbnail(image.pixels)
