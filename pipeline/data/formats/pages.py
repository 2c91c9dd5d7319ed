"""TIFF of several pages, and animated GIF, WebP and PNG: which of the images in a file are samples."""

from __future__ import annotations

import warnings
from pathlib import Path

from PIL import Image, TiffImagePlugin

from pipeline.data.decoders import formats
from pipeline.data.decoders.formats import BadImage
from pipeline.data.formats.reading import Found, Reading, check_count, pick

SMALLER, MASK = 1, 4  # bits of a TIFF page's tag 254: a smaller copy of another page, or its mask


def find_images(source: bytes | Path, reading: Reading) -> Found:
    """The pages or frames of a file; one image alone, or a camera's MPO, is read as it always was.

    What cannot be opened is read that way too, which says why. Raises `BadImage` for a file of too many images.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with formats.open_image(source) as image:
                count = getattr(image, "n_frames", 1)
                check_count(count)
                numbers = [n for n in range(count) if _is_whole(image, n)] if count > 1 else []
        except BadImage:
            raise
        except Exception:  # plugins raise anything on broken headers
            return Found()
    if len(numbers) < 2:
        return Found(parts=(tuple(numbers),))
    chosen = pick(reading.frames or "all", len(numbers), "--frames")
    return Found(parts=tuple((numbers[place],) for place in chosen))


def _is_whole(image: Image.Image, number: int) -> bool:
    """Whether it is an image of its own, not a smaller copy or a mask of another one."""
    if not isinstance(image, TiffImagePlugin.TiffImageFile):
        return True
    image.seek(number)
    return not int(image.tag_v2.get(254, 0)) & (SMALLER | MASK)
