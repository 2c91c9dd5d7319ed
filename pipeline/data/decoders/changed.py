"""Kinds of files whose pixels are others than in earlier versions: a dataset that holds one has another fingerprint.

`images.REVISION` is for changes that concern most files; the kinds here are rare, and all other datasets keep their
fingerprints and their runs.
"""

from __future__ import annotations

import warnings
from typing import BinaryIO

from PIL import PngImagePlugin, TiffImagePlugin

from pipeline.data.decoders import tiff

PNG_16_BITS = (b"\x10\0", b"\x10\2")  # bits a sample and type of colour: grey, RGB


def kind_of(file: BinaryIO) -> str | None:
    """The name of the changed kind that an open file is of, from its header; None for almost all files."""
    head = file.read(32)
    is_png = head.startswith(b"\x89PNG") and head[24:26] in PNG_16_BITS
    if not is_png and head[:4] not in TiffImagePlugin.PREFIXES:
        return None
    file.seek(0)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if is_png:
                with PngImagePlugin.PngImageFile(file) as image:
                    return "16-bit PNG with a transparent colour" if "transparency" in image.info else None
            with TiffImagePlugin.TiffImageFile(file) as image:
                if tiff.has_wide_planes(image):
                    return "16-bit TIFF in planes apart"
                return "TIFF that is refused now" if image.mode not in ("I", "F") and tiff.refusal(image) else None
    except Exception:  # it is quarantined when it is decoded
        return None
