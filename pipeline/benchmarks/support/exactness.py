"""How exact the resized pixels of each way of sharding are, in dB."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from pipeline.benchmarks.support.shard_jobs import SIZE
from pipeline.benchmarks.support.tables import Row, Table
from pipeline.data import images

IMAGES = 60


def exactness(paths: list[Path], note: str) -> Table:
    """Compare resized pixels, before they are encoded, with exact decoding and Pillow's bilinear resize."""
    data = [path.read_bytes() for path in paths[:IMAGES]]
    expected = [np.asarray(_pillow(item)) for item in data]
    ways: dict[str, tuple[str, Callable[[bytes], np.ndarray]]] = {
        "pipeline.shard": ("ours", lambda item: images.resize(decode_exactly(item), SIZE)[..., :3]),
        "pipeline.shard --decode dct": (
            "ours",
            lambda item: images.resize(images.decode(item, min_side=SIZE).pixels, SIZE),
        ),
        "Pillow in draft mode": ("peer", lambda item: np.asarray(_pillow(item, draft=True))),
        "Pillow without antialiasing": ("peer", lambda item: np.asarray(_without_antialiasing(item))),
        "JPEG 95 of the expected pixels": ("limit", lambda item: images.decode_stored(_as_stored(item))),
    }
    rows = []
    for name, (role, pixels_of) in ways.items():
        found = [psnr(pixels_of(item), pixels) for item, pixels in zip(data, expected, strict=True)]
        rows += [Row(name=f"{name}, mean", role=role, values=[float(np.mean(found))])]
        rows += [Row(name=f"{name}, minimum", role=role, values=[min(found)])]
    notes = [f"{len(data)} images of these: {note}", "peak signal-to-noise ratio; equal pixels count as 150 dB"]
    return Table(title="exactness", unit="dB", rows=rows, notes=notes)


def decode_exactly(data: bytes) -> np.ndarray:
    """The pixels as the workers of `pipeline.shard` decode them."""
    return images.decode(data, channels=4).pixels


def psnr(found: np.ndarray, expected: np.ndarray) -> float:
    """Peak signal-to-noise ratio in dB, at most 150."""
    error = float(((found.astype(float) - expected.astype(float)) ** 2).mean())
    return float(10 * np.log10(255**2 / max(error, 255**2 / 1e15)))


def _pillow(data: bytes, *, draft: bool = False) -> Image.Image:
    with Image.open(io.BytesIO(data)) as image:
        if draft:
            image.draft("RGB", (SIZE, SIZE))
        return image.convert("RGB").resize((SIZE, SIZE), Image.Resampling.BILINEAR)


def _without_antialiasing(data: bytes) -> Image.Image:
    with Image.open(io.BytesIO(data)) as image:
        size = image.size
        scale = (size[0] / SIZE, 0, 0, 0, size[1] / SIZE, 0)
        return image.convert("RGB").transform((SIZE, SIZE), Image.Transform.AFFINE, scale, Image.Resampling.BILINEAR)


def _as_stored(data: bytes) -> bytes:
    return images.encode(np.asarray(_pillow(data)), format="jpeg", quality=None)
