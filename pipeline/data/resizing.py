"""Resize images by the library that is here: cykooz-resizer, or torch, which gives the same bits."""

from __future__ import annotations

import warnings
from functools import cache
from typing import Any

import numpy as np

try:
    import cykooz_resizer
except ImportError:
    cykooz_resizer = None

BAND_PIXELS = 1 << 19  # resized at once, so that copies of the band stay in the CPU's cache


def resized_by() -> str:
    """The library that resizes."""
    return "torch" if cykooz_resizer is None else "cykooz-resizer"


def resize(pixels: np.ndarray, size: int) -> np.ndarray:
    """Resize uint8 [h, w, c] to [size, size, c], bilinear with antialiasing; the aspect ratio is not kept (E.2.2).

    Rows are resized first and then columns, as in Pillow and torchvision: the result equals torchvision's to the bit
    and is within one grey level of Pillow's. `c` is 3 or 4.
    """
    if pixels.shape[:2] == (size, size):
        return pixels
    return _by_torch(pixels, size) if cykooz_resizer is None else _by_cykooz(pixels, size)


def _by_cykooz(pixels: np.ndarray, size: int) -> np.ndarray:
    height, width, channels = pixels.shape
    rows = max(1, BAND_PIXELS // width)
    bands = (pixels[start : start + rows] for start in range(0, height, rows))
    narrow = bytearray()
    for band in bands:
        narrow += _resize_packed(band.tobytes(), (width, len(band)), (size, len(band)), channels)
    scaled = _resize_packed(bytes(narrow), (size, height), (size, size), channels)
    return np.frombuffer(scaled, np.uint8).reshape(size, size, channels)


def _resize_packed(pixels: bytes, source: tuple[int, int], target: tuple[int, int], channels: int) -> bytes:
    """Resize packed pixels from the size `source` (width, height) to the size `target`."""
    from cykooz_resizer import ImageData, PixelType

    resizer, bilinear = _resizer()
    kind = PixelType.U8x3 if channels == 3 else PixelType.U8x4
    image = ImageData(*target, kind)
    resizer.resize(ImageData(*source, kind, pixels), image, bilinear)
    data: bytes = image.get_buffer()
    return data


def _by_torch(pixels: np.ndarray, size: int) -> np.ndarray:
    """As `resize`, to the same bits. Torch takes seconds to import, which small jobs would not earn, and its threads do
    not survive a fork, so it is not used merely because it is loaded."""
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the array may not be written, and is not
        image = torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1)[None]
    scaled = torch.nn.functional.interpolate(image, size=(size, size), mode="bilinear", antialias=True)
    out: np.ndarray = scaled[0].permute(1, 2, 0).contiguous().numpy()
    return out


@cache
def _resizer() -> tuple[Any, Any]:
    from cykooz_resizer import FilterType, ResizeAlg, ResizeOptions, Resizer

    return Resizer(), ResizeOptions(ResizeAlg.convolution(FilterType.bilinear), use_alpha=False)
