"""NIfTI: volumes to slices in canonical orientation, shown as radiologists do: the patient's right at the left.

Of a file of several volumes the first is read. Grey levels are between two percentiles of the whole volume unless
--window says otherwise, so that all slices of a volume are comparable.
"""

from __future__ import annotations

import gzip
import io
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from pipeline.data import members
from pipeline.data.decoders import budget
from pipeline.data.decoders.formats import BadImage
from pipeline.data.formats.reading import (
    AXES,
    NONBLANK,
    PERCENTILES,
    STORED,
    VOI,
    Found,
    Part,
    Reading,
    Stamp,
    Window,
    check_count,
    missing,
    parse_window,
    pick,
)
from pipeline.data.formats.words import no_words
from pipeline.data.images import Decoded

DAMAGED = "is NIfTI that is damaged, cut off or of a kind that is not read"
INNER = Window(PERCENTILES, 0.5, 99.5)
MAX_RATIO = 1032  # of unpacked to packed bytes, of deflate
BYTES = 24  # a voxel at most: as stored, as a number of 64 bits, for the percentiles
BRIGHT, SHARE = 0.1, 0.01
"""A slice is blank if less than SHARE of its pixels is above BRIGHT of the way from black to white."""


class Volume(NamedTuple):
    """A volume on its way to grey levels."""

    values: np.ndarray
    """float32 [right, anterior, superior]: the canonical orientation."""
    black: float
    white: float
    said: str


def find_images(path: Path, reading: Reading) -> Found:
    """The slices of a file; raises `BadImage` for what cannot be used."""
    with no_words(DAMAGED), _opened(path) as image:
        count = _shape(image, path)[_axis(image, reading.axis)]
        if reading.slices == NONBLANK:
            check_count(count)
            volume = _load(image, reading.window)
            numbers = [n for n in range(count) if not _is_blank(_plane(volume, reading.axis, n))]
            if not numbers:
                raise BadImage("has no slice that is not blank")
        else:
            numbers = pick(reading.slices or "all", count, "--slices")
        return Found(parts=tuple((number,) for number in numbers), kind="NIfTI")


def decode(path: Path, stamp: Stamp, part: Part, reading: Reading, *, channels: int, memory: int | None) -> Decoded:
    """The pixels of a slice, by its number from the left, the back or the feet."""
    with no_words(DAMAGED):
        volume = _kept(path, stamp, reading.window, memory)
        levels = _levels(_plane(volume, reading.axis, part[0]))
    pixels = np.zeros((*levels.shape, channels), np.uint8)
    pixels[..., :3] = levels[..., None]
    return Decoded(pixels, levels.shape[1], levels.shape[0], (volume.said,))


@lru_cache(maxsize=1)
def _kept(path: Path, stamp: Stamp, window: str | None, memory: int | None) -> Volume:
    """The volume of a file, whose slices are asked for one after another; `stamp` tells one version from another."""
    with _opened(path) as image:
        voxels = int(np.prod(_shape(image, path)[:3]))
        needed = voxels * BYTES + budget.FIXED
        if memory is not None and needed > memory:
            raise BadImage(
                f"needs {budget.gigabytes(needed)} of memory for its {voxels:,} voxels, more than the "
                f"{budget.gigabytes(memory)} that a worker may take; use fewer workers"
            )
        return _load(image, window)


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """A file as nibabel's image, of which nothing but the header is read; nibabel goes by endings, this by bytes."""
    try:
        import nibabel
    except ImportError:
        raise missing("medical", "nibabel") from None
    with members.open_raw(path) as raw:
        file: Any = gzip.open(raw) if _is_packed(raw) else raw
        first = file.read(4)
        file.seek(0)
        is_two = 540 in (int.from_bytes(first, "little"), int.from_bytes(first, "big"))
        kind = nibabel.Nifti2Image if is_two else nibabel.Nifti1Image
        holder = nibabel.FileHolder(fileobj=file)
        yield kind.from_file_map({"image": holder, "header": holder}, mmap=False)


def _is_packed(file: BinaryIO) -> bool:
    packed = file.read(2) == b"\x1f\x8b"
    file.seek(0)
    return packed


def _shape(image: Any, path: Path) -> tuple[int, ...]:
    """The sides of the first volume; raises `BadImage` for what is none, and for more than the file can hold."""
    shape = tuple(int(side) for side in image.shape)
    kind = image.get_data_dtype()
    if kind.fields is not None or kind.kind not in "iuf":
        raise BadImage("is NIfTI of colours or complex numbers, which is not read here; convert it to numbers")
    if len(shape) < 3 or min(shape) < 1:
        raise BadImage("is NIfTI that holds no volume")
    needed = int(np.prod(shape[:3], dtype=object)) * kind.itemsize
    with members.open_raw(path) as file:
        packed, size = _is_packed(file), file.seek(0, io.SEEK_END)
    if needed + image.dataobj.offset > size * (MAX_RATIO if packed else 1):
        raise BadImage("is NIfTI that is cut off: its bytes cannot hold its voxels")
    return shape


def _axis(image: Any, plane: str) -> int:
    """The stored axis along which slices of a plane are counted."""
    from nibabel.orientations import io_orientation

    axes = io_orientation(image.affine)[:, 0]
    return int(np.flatnonzero(axes == AXES.index(plane))[0])


def _load(image: Any, window: str | None) -> Volume:
    from nibabel.orientations import apply_orientation, io_orientation

    several = len(image.shape) > 3 and max(image.shape[3:]) > 1
    stored = image.dataobj[(..., *(0,) * (len(image.shape) - 3))]
    values = np.asarray(apply_orientation(np.asarray(stored, np.float32), io_orientation(image.affine)))
    black, white, said = _ends(values, image, window)
    return Volume(values, black, white, said + (", the first volume of several" if several else ""))


def _ends(values: np.ndarray, image: Any, window: str | None) -> tuple[float, float, str]:
    """The values of black and white, and how they came about."""
    chosen = parse_window(window) if window else INNER
    default = "" if window else ", the default"
    if chosen.kind == VOI:
        low, high = (float(image.header[word]) for word in ("cal_min", "cal_max"))
        if low < high:
            return low, high, "NIfTI in each file's own window"
        chosen = INNER
    if chosen.kind == "fixed":
        centre, width = chosen.low - 0.5, chosen.high - 1
        return centre - width / 2, centre + width / 2, f"NIfTI in the window {chosen.low:g},{chosen.high:g}"
    if chosen.kind == STORED:
        if (kind := image.get_data_dtype()).kind == "f":
            raise BadImage("has floating-point numbers, whose full range nobody states; give another --window")
        slope, offset = float(image.dataobj.slope), float(image.dataobj.inter)
        ends = sorted(float(end) * slope + offset for end in (np.iinfo(kind).min, np.iinfo(kind).max))
        return ends[0], ends[1], "NIfTI by the full stored range"
    finite = values[np.isfinite(values)]
    if not finite.size:
        raise BadImage("has no voxel that is a number")
    low, high = (float(end) for end in np.percentile(finite, (chosen.low, chosen.high)))
    said = f"NIfTI between the percentiles {chosen.low:g} and {chosen.high:g} of each volume{default}"
    return low, high, said


def _plane(volume: Volume, plane: str, number: int) -> np.ndarray:
    """A slice as 0 to 1, not clipped: the head above or the face, the patient's right or the face at the left."""
    section = np.moveaxis(volume.values, AXES.index(plane), 0)[number].T[::-1, ::-1]  # np.take would copy the volume
    shown: np.ndarray = (section - volume.black) / max(volume.white - volume.black, 1e-9)
    return shown


def _levels(shown: np.ndarray) -> np.ndarray:
    levels: np.ndarray = np.floor(np.clip(np.nan_to_num(shown), 0, 1) * 255 + 0.5).astype(np.uint8)
    return levels


def _is_blank(shown: np.ndarray) -> bool:
    return bool((np.nan_to_num(shown) > BRIGHT).mean() < SHARE)
