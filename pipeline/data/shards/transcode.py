"""A raw file as it is stored: all that a sharding worker does, and thus all that it has to import."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pipeline.core import files
from pipeline.data import images


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How images are stored; every field is part of the dataset's fingerprint."""

    size: int
    split: str
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
            raise ValueError("--quality does not go with --format png, which loses nothing; leave it out")


def stored(task: tuple[Path, str, Settings]) -> tuple[bytes, int, int] | images.BadImage:
    """The bytes that are stored of a raw file whose SHA-256 is known, and its width and height in pixels."""
    path, checksum, settings = task
    try:
        raw = path.read_bytes()
        if files.sha256_bytes(raw) != checksum:
            return images.BadImage("changed while the dataset was sharded; shard it again")
        least = settings.size if settings.decode == "dct" else 0
        image = images.decode(raw, least=least, channels=4)
        small = images.resize(image.pixels, settings.size)
        data = images.encode(small, format=settings.format, quality=settings.quality)
        return data, image.width, image.height
    except images.BadImage as error:
        return error
    except OSError as error:
        return images.BadImage(f"cannot be read: {error.strerror}")
