"""PNG: its checksums, which Pillow does not check where the pixels are."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

from PIL import Image

from pipeline.data.decoders.deflate import unpacked_size
from pipeline.data.decoders.formats import BadImage

NEEDED = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")  # what decides the pixels, in the order that PNG asks for

MAX_RATIO = 1032  # of unpacked to packed bytes, of deflate
ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
"""The passes of an interlaced image: first column, first row, and the steps between them."""
PALETTE = 3  # a type of colour
SAMPLES = {0: 1, 2: 3, PALETTE: 1, 4: 2, 6: 4}  # a pixel, by type of colour


def check(data: bytes) -> None:
    """Raise `BadImage` if a chunk that decides the pixels is damaged, out of order or missing.

    Pillow decodes an image whose palette is missing, or comes behind the pixels, in other colours without a word.
    """
    place, view, before, last = 8, memoryview(data), b"", b""
    while place + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, place)
        end = place + 8 + length
        if end + 4 > len(data):
            break
        (checksum,) = struct.unpack_from(">I", data, end)
        if kind in NEEDED and zlib.crc32(view[place + 4 : end]) != checksum:
            raise BadImage(f"is damaged: the checksum of its part {kind.decode()} at byte {place:,} does not fit")
        if kind in NEEDED:
            later = NEEDED.index(kind) > NEEDED.index(last) if last else place == 8
            if not later and not kind == before == b"IDAT":
                raise BadImage(f"is damaged: its part {kind.decode()} at byte {place:,} is not where it belongs")
            if kind == b"IDAT" and last == b"IHDR" and data[25] == PALETTE:
                raise BadImage("is damaged: its palette (PLTE) is missing")
            last = kind
        if kind == b"IEND":
            return
        place, before = end + 4, kind
    raise BadImage("is truncated or damaged: its parts do not lead to its end (IEND)")


def bits(data: bytes) -> int:
    """Bits a sample, from the header."""
    return data[24]


def check_size(data: bytes) -> None:
    """Raise `BadImage` if the file is too short for its pixels, before memory is taken for them."""
    if _bytes_of_rows(data) > MAX_RATIO * len(data):
        width, height = struct.unpack_from(">II", data, 16)
        raise BadImage(f"is damaged: its {len(data):,} bytes cannot hold {width:,} × {height:,} pixels")


def check_rows(data: bytes, image: Image.Image) -> None:
    """Raise `BadImage` if the compressed data ends before the last row, whose pixels Pillow then leaves at zero.

    Counting all bytes is slow, so it is done only where one of the last two rows is zero.
    """
    width, height = image.size
    last = [image.crop((0, row, width, row + 1)) for row in range(max(0, height - 2), height)]
    if all(row.getbbox(alpha_only=False) for row in last):
        return
    wanted, found = _bytes_of_rows(data), unpacked_size(_image_data(data))
    if found < wanted:
        raise BadImage(f"is damaged: its data holds {found:,} of {wanted:,} bytes")


def _bytes_of_rows(data: bytes) -> int:
    """The bytes of all rows, unpacked, with the byte that begins each of them."""
    width, height, bits, colour, _, _, interlaced = struct.unpack_from(">IIBBBBB", data, 16)
    passes = ADAM7 if interlaced else ((0, 0, 1, 1),)
    total = 0
    for left, top, right, down in passes:
        columns, rows = -(-(width - left) // right), -(-(height - top) // down)
        if columns > 0 and rows > 0:
            total += rows * (1 + -(-columns * bits * SAMPLES[colour] // 8))
    return total


def _image_data(data: bytes) -> Iterator[bytes]:
    place = 8
    while place + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, place)
        if kind == b"IDAT":
            yield data[place + 8 : place + 8 + length]
        place += 12 + length
