"""TIFF: what Pillow reads wrong or silently, and what libtiff prints.

Kinds that Pillow reads wrong are decoded here or refused; tests compare every kind with pixels that are known.
"""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
import threading
from collections.abc import Iterator

import numpy as np
from PIL import Image, TiffImagePlugin

from pipeline.data.decoders.deflate import unpacked_size
from pipeline.data.decoders.formats import BadImage

SIGNED = "has signed or 32-bit pixels, whose range nobody states; convert it to unsigned 8 or 16 bits"
(WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, STRIPS, SAMPLES, ROWS, STRIP_BYTES, PLANES) = (
    TiffImagePlugin.IMAGEWIDTH,
    TiffImagePlugin.IMAGELENGTH,
    TiffImagePlugin.BITSPERSAMPLE,
    TiffImagePlugin.COMPRESSION,
    TiffImagePlugin.PHOTOMETRIC_INTERPRETATION,
    TiffImagePlugin.STRIPOFFSETS,
    TiffImagePlugin.SAMPLESPERPIXEL,
    TiffImagePlugin.ROWSPERSTRIP,
    TiffImagePlugin.STRIPBYTECOUNTS,
    TiffImagePlugin.PLANAR_CONFIGURATION,
)
TILE_WIDTH, TILE_HEIGHT, TILES, TILE_BYTES = 322, 323, 324, 325
JPEG, TABLES = 7, 347
DEFLATED = (8, 32946)
UNSIGNED, VOID = 1, 4  # kinds of numbers
APART = 2  # planes
_descriptor = threading.Lock()


def check(image: TiffImagePlugin.TiffImageFile, data: bytes) -> None:
    """Raise `BadImage` for kinds that nobody can read for certain, and if pixels are damaged or not in the file."""
    size = len(data)
    if reason := refusal(image):
        raise BadImage(reason)
    tags = image.tag_v2
    blocks = _blocks(image)
    offsets, lengths = _numbers(tags.get(blocks.offsets)), _numbers(tags.get(blocks.lengths))
    if len(offsets) < blocks.number:
        raise BadImage(f"is damaged: it names {len(offsets):,} of its {blocks.number:,} blocks of pixels")
    if tags.get(COMPRESSION, 1) == 1:  # writers are careless with lengths, and nobody needs them
        lengths = (blocks.smallest,) * len(offsets)
    for offset, length in zip(offsets, lengths, strict=False):
        if offset + length > size or not length:
            raise BadImage(f"is truncated or damaged: its pixels at byte {offset:,} are not in the file")
    if tags.get(COMPRESSION) in DEFLATED:
        for block in _packed(image, data):
            unpacked_size([block])


def refusal(image: TiffImagePlugin.TiffImageFile) -> str | None:
    """Why a kind of TIFF is refused that Pillow reads, but not right; None for all others."""
    if any(kind not in (UNSIGNED, VOID) for kind in _numbers(image.tag_v2.get(TiffImagePlugin.SAMPLEFORMAT, (1,)))):
        return SIGNED
    if _planes_apart(image) and (image.mode in ("LA", "La") or has_wide_planes(image) and image.mode != "RGB"):
        return "stores alpha in a plane of its own; export it with the samples of a pixel together"
    return None


def has_wide_planes(image: Image.Image) -> bool:
    """Whether a TIFF stores colour of 16 bits, not compressed, in planes apart: Pillow makes noise of it."""
    return (
        isinstance(image, TiffImagePlugin.TiffImageFile)
        and _planes_apart(image)
        and image.tag_v2.get(COMPRESSION, 1) == 1
        and set(image.tag_v2.get(BITS, (1,))) == {16}
    )


def decode_wide_planes(image: TiffImagePlugin.TiffImageFile, data: bytes, channels: int) -> np.ndarray:
    """The high bytes of a TIFF that `has_wide_planes`, uint8 [height, width, channels] as stored."""
    tags, blocks = image.tag_v2, _blocks(image)
    height, width = tags[HEIGHT], tags[WIDTH]
    out = np.zeros((height, width, channels), np.uint8)
    high = 1 if tags.prefix == b"II" else 0
    across, down = -(-width // blocks.width), -(-height // blocks.height)
    for number, offset in enumerate(tags[blocks.offsets][: 3 * across * down]):
        plane, place = divmod(number, across * down)
        top, left = place // across * blocks.height, place % across * blocks.width
        stored = blocks.height if blocks.offsets == TILES else min(blocks.height, height - top)
        pairs = np.frombuffer(data, np.uint8, stored * blocks.width * 2, offset).reshape(stored, blocks.width, 2)
        target = out[top : top + stored, left : left + blocks.width, plane]
        target[:] = pairs[: target.shape[0], : target.shape[1], high]
    return out


@contextlib.contextmanager
def native_messages(said: list[str]) -> Iterator[None]:
    """Take what native libraries print on the standard error and append its lines to `said`."""
    with _descriptor, tempfile.TemporaryFile() as file:
        before = os.dup(2)
        os.dup2(file.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(before, 2)
            os.close(before)
            file.seek(0)
            said += file.read(2000).decode(errors="replace").splitlines()


def tells_damage(line: str) -> bool:
    """Whether what libtiff or a library below it prints means that a part of the pixels is wrong."""
    is_of_tags = line.startswith(("TIFFFetch", "TIFFReadDir")) or "Warning," in line
    words = r"error|corrupt|premature|truncat|bad |not enough|invalid|mismatch|code not"
    return not is_of_tags and bool(re.search(words, line, re.I))


def jpegs(image: TiffImagePlugin.TiffImageFile, data: bytes) -> Iterator[bytes]:
    """The strips or tiles of a TIFF that are JPEGs, each as a file of its own."""
    if image.tag_v2.get(COMPRESSION) != JPEG:
        return
    tables = image.tag_v2.get(TABLES, b"")
    for block in _packed(image, data):
        yield tables[:-2] + bytes(block[2:]) if len(tables) > 4 else bytes(block)


def _packed(image: TiffImagePlugin.TiffImageFile, data: bytes) -> Iterator[memoryview]:
    """The strips or tiles as they are stored."""
    blocks, view = _blocks(image), memoryview(data)
    offsets = _numbers(image.tag_v2.get(blocks.offsets))[: blocks.number]
    for offset, length in zip(offsets, _numbers(image.tag_v2.get(blocks.lengths)), strict=False):
        yield view[offset : offset + length]


class _Blocks:
    """The strips or tiles of an image."""

    def __init__(self, tags: TiffImagePlugin.ImageFileDirectory_v2) -> None:
        width, height = tags[WIDTH], tags[HEIGHT]
        self.offsets, self.lengths = (TILES, TILE_BYTES) if TILES in tags else (STRIPS, STRIP_BYTES)
        if self.offsets == TILES:
            self.width, self.height = int(tags[TILE_WIDTH]), int(tags[TILE_HEIGHT])
        else:
            self.width, self.height = width, max(1, min(int(tags.get(ROWS, height)), height))
        planes = int(tags.get(SAMPLES, 1)) if tags.get(PLANES, 1) == APART else 1
        bits = _numbers(tags.get(BITS, (1,)))
        samples = 1 if planes > 1 else int(tags.get(SAMPLES, len(bits)))
        self.number = planes * -(-width // self.width) * -(-height // self.height)
        last = self.height if self.offsets == TILES else height - (-(-height // self.height) - 1) * self.height
        self.smallest = -(-self.width * bits[0] * samples // 8) * last


def _blocks(image: TiffImagePlugin.TiffImageFile) -> _Blocks:
    try:
        return _Blocks(image.tag_v2)
    except (KeyError, TypeError, ValueError, ZeroDivisionError, IndexError):
        raise BadImage("is damaged: its tags do not say where its pixels are") from None


def _planes_apart(image: TiffImagePlugin.TiffImageFile) -> bool:
    return image.tag_v2.get(PLANES, 1) == APART and int(image.tag_v2.get(SAMPLES, 1)) > 1


def _numbers(value: object) -> tuple[int, ...]:
    if value is None:
        return ()
    return tuple(value) if isinstance(value, tuple) else (int(value),)  # type: ignore[call-overload]
