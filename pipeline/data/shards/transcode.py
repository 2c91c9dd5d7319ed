"""Transcode a raw file to its stored form: all that a sharding worker does, and so all that it imports."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, NamedTuple

from pipeline.data import images
from pipeline.data.formats import files
from pipeline.data.formats.files import Source
from pipeline.data.formats.reading import Reading

if TYPE_CHECKING:
    import numpy as np


AUTO = "auto"
"""A split that is `grouped` if the files themselves say which images belong together, and `image` if not."""


@dataclass(frozen=True, kw_only=True)
class ShardSettings:
    """How images are stored. `to_json` is hashed into the dataset's fingerprint.

    Raises `ValueError` for values that no shards can have.
    """

    size: int
    """Side in pixels."""
    split: str
    """`image`, `grouped`, or AUTO until the files are read."""
    format: str
    quality: int | None
    keep_names: bool
    decode: str = "exact"
    """`dct`: large JPEGs are decoded at a fraction of their size, faster and less exactly."""
    bits: int | None = None
    """Of the values in 16-bit grey images; None: 16, or what a TIFF says."""
    reading: Reading = Reading()
    """Of files that hold several images, or values that need a window."""

    def __post_init__(self) -> None:
        if not 8 <= self.size <= 4096:
            raise ValueError(f"--size is {self.size}; give a side between 8 and 4096 pixels")
        if self.quality is not None and not 1 <= self.quality <= 100:
            raise ValueError(f"--quality is {self.quality}; give a number from 1 to 100")
        if self.quality is not None and self.format == "png":
            raise ValueError("--quality does not go with --format png, which is lossless; omit it")

        images.check_bits(self.bits)

    @classmethod
    def of_json(cls, values: Mapping[str, Any]) -> ShardSettings:
        """What `to_json` gave; raises `TypeError` for a setting that is unknown."""
        of_reading = {field.name for field in fields(Reading)}
        reading = Reading(**{name: value for name, value in values.items() if name in of_reading})
        return cls(**{name: value for name, value in values.items() if name not in of_reading}, reading=reading)

    def to_json(self) -> dict[str, Any]:
        """The fields as manifests store them; one that came later and has its default is left out."""
        values = asdict(self)
        if self.bits is None:
            del values["bits"]
        del values["reading"]
        return values | self.reading.to_json()


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
def transcode(task: tuple[Source, ShardSettings], *, memory: int | None = None) -> Transcoded:
    """Decode, resize and encode an image of a raw file, or say why it cannot be used.

    An image that needs more than `memory` bytes cannot be used.
    """
    source, settings = task
    image = files.decode(
        source,
        settings.reading,
        min_side=settings.size if settings.decode == "dct" else 0,
        channels=4,
        size=settings.size,
        memory=memory,
        bits=settings.bits,
    )
    small = images.resize(image.pixels, settings.size)
    data = images.encode(small, format=settings.format, quality=settings.quality)
    is_blank = images.is_blank(small) and images.is_blank(image.pixels)
    return Transcoded(data, image.width, image.height, is_blank, image.remarks, image.peak)


@images.or_reason
def raw_thumbnail(source: Source, *, settings: ShardSettings, memory: int | None = None) -> np.ndarray:
    """The thumbnail of an image for `data/twins`, decoded as small as its format allows; or why there is none."""
    from pipeline.data import sketches, twins

    side = 2 * sketches.SIDE
    image = files.decode(
        source,
        settings.reading,
        min_side=side,
        channels=3,
        size=side,
        memory=memory,
        bits=settings.bits,
        check=False,
    )
    return twins.thumbnail(image.pixels)
