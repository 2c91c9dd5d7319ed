"""JPEG: a fast decoder whose warnings tell damage from harmless oddities.

After damage libjpeg continues and returns an image of which a part is wrong; its warning is all that says so. Pillow
drops the warning, simplejpeg raises. JPEG has no checksum, so damage that happens to be valid code is not seen.
"""

from __future__ import annotations

import re
from typing import NamedTuple

import numpy as np

try:
    import simplejpeg as simplejpeg
except ImportError:  # Pillow then decodes the same pixels, more slowly, and damage is not told
    simplejpeg = None

from pipeline.data.decoders.formats import BadImage, unread_jpeg

COLOUR_SPACES = {3: "RGB", 4: "RGBX"}  # simplejpeg's names, by channels
PADDING = 512  # bytes of one value that may fill the space before the end marker
ARITHMETIC = (b"\xff\xc9", b"\xff\xca")  # markers of frames
EXTRANEOUS = re.compile(r"(\d+) extraneous bytes before marker 0x([0-9a-f]{2})")
END = b"\xff\xd9"


class Jpeg(NamedTuple):
    """What the fast decoder gives."""

    pixels: np.ndarray
    """uint8 [height, width, channels]."""
    remark: str | None
    """A harmless oddity of the file."""


def decode(data: bytes, colours: str, *, min_side: int = 0) -> Jpeg | None:
    """The pixels of a JPEG as they are stored; None if the decoder cannot read its kind or is not there.

    Equal to Pillow's to the bit if `min_side` is 0. Raises `BadImage` if a part of the data is damaged.
    """
    if simplejpeg is None:
        return None
    remark = None
    for _ in range(4):  # one oddity a round
        try:
            return Jpeg(_strict(data, colours, min_side), remark)
        except ValueError as error:
            said = str(error)
        if not _is_warning(said, data, colours):
            if (reason := unread_jpeg(data)) is not None:
                raise BadImage(reason)
            return None
        repaired, remark = _without_oddity(data, said)
        if repaired is None:
            break
        data = repaired
    raise BadImage(f"is damaged: {said[:1].lower() + said[1:]}")


def check_size(data: bytes, width: int, height: int) -> None:
    """Raise `BadImage` if the file is too short for its pixels, before memory is taken for them.

    Huffman's code takes at least a bit for each block of 8 × 8 pixels; arithmetic coding can take less.
    """
    if width * height > 64 * 8 * len(data) and not any(marker in data for marker in ARITHMETIC):
        raise BadImage(f"is damaged: its {len(data):,} bytes cannot hold {width:,} × {height:,} pixels")


def check(data: bytes) -> None:
    """Raise `BadImage` if a JPEG inside another file is damaged."""
    if simplejpeg is None:
        return
    try:
        height, width, *_ = simplejpeg.decode_jpeg_header(data)
    except ValueError:  # the whole file's decoder judges
        return
    check_size(data, width, height)
    decode(data, "GRAY")


def _strict(data: bytes, colours: str, min_side: int) -> np.ndarray:
    pixels: np.ndarray = simplejpeg.decode_jpeg(
        data, colours, min_height=min_side, min_width=min_side, min_factor=2 if min_side else 1
    )
    return pixels


def _is_warning(said: str, data: bytes, colours: str) -> bool:
    """Whether the decoder can continue after what it complains of; else it is an error, which Pillow judges."""
    if said.startswith(("Corrupt JPEG data", "Premature end", "Inconsistent progression")):
        return True
    try:
        simplejpeg.decode_jpeg(data, colours, strict=False)
    except ValueError:
        return False
    return True


def _without_oddity(data: bytes, said: str) -> tuple[bytes | None, str | None]:
    """The data without what the warning is about, if that is harmless, and what to call it; else None."""
    if "unknown JFIF revision" in said and (place := data.find(b"JFIF\0")) > 0:
        return data[: place + 5] + b"\1\1" + data[place + 7 :], "JPEG of an unknown revision, otherwise whole"
    if "Invalid SOS parameters" in said and (place := data.find(b"\xff\xda")) > 0:
        end = place + 2 + int.from_bytes(data[place + 2 : place + 4], "big")
        return data[: end - 3] + b"\0\x3f\0" + data[end:], "JPEG with odd parameters of its scan, otherwise whole"
    remark = "JPEG with surplus bytes between its parts, otherwise whole"
    if not (match := EXTRANEOUS.search(said)):
        return None, None
    if match[2] != "d9":
        return _without_surplus(data), remark
    number, end = int(match[1]), data.rfind(END)
    surplus = data[end - number : end]
    if number > PADDING or len(set(surplus)) != 1:  # what is left of an image whose earlier data is damaged
        return None, None
    return data[: end - number] + data[end:], remark


def _without_surplus(data: bytes) -> bytes | None:
    """The data without what is between the segments before the first scan; None if there is nothing."""
    parts, place = [data[:2]], 2
    while place + 4 <= len(data):
        start = data.find(b"\xff", place)
        while start >= 0 and data[start + 1 : start + 2] in (b"\0", b"\xff"):
            start = data.find(b"\xff", start + 1)
        if start < 0 or start + 4 > len(data):
            break
        length = int.from_bytes(data[start + 2 : start + 4], "big")
        if data[start + 1] == 0xDA:
            whole = b"".join([*parts, data[start:]])
            return whole if len(whole) < len(data) else None
        parts.append(data[start : start + 2 + length])
        place = start + 2 + length
    return None
