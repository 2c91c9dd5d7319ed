"""Stored values to upright 8-bit RGB, band by band, so that no second copy of a large image is in memory."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from PIL import ExifTags, Image, TiffImagePlugin

from pipeline.data.decoders.formats import BadImage

BAND_PIXELS = 1 << 20
NO_PROFILE = ("srgb", "iec61966-2.1", "iec 61966-2.1")  # what names of sRGB's profile contain


def rgb(image: Image.Image, channels: int) -> np.ndarray:
    """The pixels of a loaded image as uint8 [height, width, channels], as stored; alpha is laid over black."""
    out = np.empty((image.height, image.width, channels), np.uint8)
    rows = max(1, BAND_PIXELS // image.width)
    for top in range(0, image.height, rows):
        band = image.crop((0, top, image.width, min(top + rows, image.height)))
        if band.has_transparency_data:
            band = band.convert("RGBA")
            band = Image.alpha_composite(Image.new("RGBA", band.size, (0, 0, 0, 255)), band)
        band = band.convert("RGB")
        out[top : top + rows] = np.asarray(band if channels == 3 else band.convert("RGBX"))
    return out


def rgb_of_16_bit(image: Image.Image, channels: int, bits: int | None) -> tuple[np.ndarray, int]:
    """A loaded 16-bit grey image as `rgb` gives it, by the full range, and its greatest value.

    With `bits` the full range is 2 ** bits - 1; raises `BadImage` for a greater value. A transparent value is black.
    """
    black, white = black_and_white(image, bits)
    table = _table(black, white)
    if (clear := image.info.get("transparency")) is not None and isinstance(clear, int) and 0 <= clear < len(table):
        table = table.copy()
        table[clear] = 0
    out = np.empty((image.height, image.width, channels), np.uint8)
    rows, peak = max(1, BAND_PIXELS // image.width), 0
    for top in range(0, image.height, rows):
        wide = np.asarray(image.crop((0, top, image.width, min(top + rows, image.height))))
        peak = max(peak, int(wide.max()))
        if bits is not None and peak > max(black, white):
            raise BadImage(f"has the value {peak:,}, above {max(black, white):,}, the greatest of --bits {bits}")
        out[top : top + rows] = table[wide][..., None]
    return out, peak


@lru_cache(maxsize=16)
def _table(black: int, white: int) -> np.ndarray:
    """The grey level, 0 to 255, of each 16-bit value; a value beyond white wraps, as it always did."""
    full = abs(white - black)
    wide = abs(np.arange(65536, dtype=np.int64) - black)
    return ((wide * 255 + full // 2) // full).astype(np.uint8)


def black_and_white(image: Image.Image, bits: int | None = None) -> tuple[int, int]:
    """The values of black and white: a TIFF can hold 12 bits or have 0 for white, and Pillow corrects neither."""
    tags = image.tag_v2 if isinstance(image, TiffImagePlugin.TiffImageFile) else {}
    white = 2 ** (bits or int(tags.get(TiffImagePlugin.BITSPERSAMPLE, (16,))[0])) - 1
    return (white, 0) if tags.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION) == 0 else (0, white)


def orientation(image: Image.Image) -> int:
    """How the image must be turned to be upright, a number of EXIF 2.3, 4.6.4 A; 1: not at all."""
    found = image.getexif().get(ExifTags.Base.Orientation, 1)
    return found if isinstance(found, int) and 1 <= found <= 8 else 1


def upright(pixels: np.ndarray, turn: int) -> np.ndarray:
    """Turn stored rows and columns [h, w, c] upright."""
    if turn == 1:
        return pixels
    if turn >= 5:
        pixels = pixels.transpose(1, 0, 2)
    if turn in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if turn in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)


def profile_remark(image: Image.Image) -> str | None:
    """What to say of a colour profile that is not sRGB; None if there is none."""
    profile = image.info.get("icc_profile")
    if not isinstance(profile, bytes) or not profile:
        return None
    name = _profile_name(profile)
    if name is not None and any(known in name.lower() for known in NO_PROFILE):
        return None
    return f"colour profile {name or 'without a name'}, not sRGB: colours are kept as stored"


@lru_cache(maxsize=64)
def _profile_name(profile: bytes) -> str | None:
    """The description in an ICC profile (ICC.1:2010, 9.2.41), up to 60 characters; None if it cannot be read."""
    number = min(int.from_bytes(profile[128:132], "big"), 100)
    for place in range(132, 132 + 12 * number, 12):
        if profile[place : place + 4] == b"desc":
            start = int.from_bytes(profile[place + 4 : place + 8], "big")
            text = profile[start : start + int.from_bytes(profile[place + 8 : place + 12], "big")]
            if text[:4] == b"mluc":
                length, offset = int.from_bytes(text[20:24], "big"), int.from_bytes(text[24:28], "big")
                name = text[offset : offset + length].decode("utf-16-be", errors="replace")
            else:
                name = text[12 : 12 + int.from_bytes(text[8:12], "big")].decode("latin-1")
            return name.strip("\0 ")[:60] or None
    return None
