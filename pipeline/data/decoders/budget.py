"""How much memory decoding and resizing an image takes, estimated from its header before any pixel is decoded."""

from __future__ import annotations

from PIL import Image

STORED = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16B": 2, "I;16L": 2, "I;16N": 2}  # bytes a pixel that Pillow holds
COLOUR = 4  # for all other modes
ROW = 16  # bytes a row: Pillow's pointer to it, and what fills the row
FIXED = 64 << 20  # bands, tables, and what the decoders hold


def bytes_needed(image: Image.Image, source: int, *, channels: int, fast: bool, turned: bool, size: int | None) -> int:
    """The most bytes that are held at once, from the header of an image whose file has `source` bytes.

    `fast`: a JPEG that Pillow does not decode. `size`: the side that it is resized to.
    """
    pixels = image.width * image.height
    each = float(channels + (channels if turned else 0))
    if not fast:
        each += STORED.get(image.mode, COLOUR)
    if image.format in ("JPEG", "MPO"):
        if image.info.get("progressive"):  # libjpeg holds all coefficients, 16 bits each
            each += 2 * len(image.getbands())
        if not fast:
            each += COLOUR  # it is checked by the fast decoder first
    elif image.format == "WEBP":
        each += 3 * COLOUR  # two canvases of libwebp, and a copy
    elif image.format == "GIF":
        each += 2 * COLOUR
    elif image.format == "TIFF":
        each += 8  # a strip may hold the whole image
    longest = max(image.size) if turned else image.height
    resized = 3 * longest * size * channels if size else 0
    return int(pixels * each) + ROW * image.height + 2 * source + resized + FIXED


def gigabytes(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"
