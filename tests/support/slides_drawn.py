"""Slides with known tissue: tiled TIFF pyramids."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import tifffile

CELL = 64


def scan_of(seed: int = 0) -> np.ndarray:
    """uint8 [512, 768, 3]: white, with tissue of known colours in the cells of 64 from (2, 1) to (6, 4)."""
    pixels = np.full((512, 768, 3), 255, np.uint8)
    colours = np.random.default_rng(seed).integers(0, 60, (4, 5, 3)) + np.array([180, 60, 120])
    tissue = np.kron(colours, np.ones((CELL, CELL, 1))).astype(np.uint8)
    pixels[CELL : 5 * CELL, 2 * CELL : 7 * CELL] = tissue
    return pixels


def save(path: Path, pixels: np.ndarray, *, mpp: float | None = 0.5) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    more: dict[str, Any] = {"resolution": (1e4 / mpp, 1e4 / mpp), "resolutionunit": "CENTIMETER"} if mpp else {}
    with tifffile.TiffWriter(path) as file:
        common: dict[str, Any] = {"photometric": "rgb", "tile": (128, 128), "compression": "deflate"}
        file.write(pixels, **common, **more)
        file.write(pixels[::2, ::2], subfiletype=1, **common)
    return path
