"""The files that pydicom ships for its own tests: what each is, and whether it is read as pydicom decodes it.

python tests/support/dicom_coverage.py        prints the table of docs/datasets.md
"""

from __future__ import annotations

import warnings
from collections import defaultdict
from pathlib import Path

import hospital
import numpy as np
import pydicom
from pydicom.dataset import Dataset
from pydicom.pixels import apply_color_lut, apply_modality_lut, apply_voi_lut, apply_windowing, pixel_array

from pipeline.core import files as core_files
from pipeline.data.decoders.formats import BadImage, is_dicom
from pipeline.data.formats import files, kinds
from pipeline.data.formats.files import Source
from pipeline.data.formats.reading import Found, Reading, Secret

FOLDER = hospital.test_files()
READING = Reading(window="voi")


def all_files() -> list[Path]:
    """Those that begin as DICOM; of the 50 equal ones in TINY_ALPHA one."""
    every = sorted(path for path in FOLDER.rglob("*") if path.is_file() and path.suffix not in (".json", ".txt"))
    every = [path for path in every if not path.name.startswith("IM0000") or path.name == "IM000000"]
    return [path for path in every if is_dicom(path.read_bytes()[:4096])]


def find(path: Path, reading: Reading = READING) -> Found | BadImage:
    return files.find_images((path, kinds.DICOM), reading=reading, secret=Secret(b"k", False))


def source_of(path: Path, part: tuple[int, ...]) -> Source:
    return Source(path, core_files.sha256_file(path), kinds.DICOM, part, files.stamp_of(path) if part else None)


def by_pydicom(ds: Dataset, index: int) -> np.ndarray:
    """uint8 [h, w, 3], by pydicom's own functions."""
    pixels = pixel_array(ds, index=index)
    interpretation = ds.PhotometricInterpretation
    if interpretation == "PALETTE COLOR":
        colours = apply_color_lut(pixels, ds)
        return (colours >> (8 if colours.dtype == np.uint16 and colours.max() > 255 else 0)).astype(np.uint8)
    if not interpretation.startswith("MONOCHROME"):
        return (pixels >> (ds.BitsStored - 8)).astype(np.uint8)
    scaled = apply_modality_lut(pixels, ds)
    shown = apply_voi_lut(scaled, ds)
    if "WindowCenter" in ds:
        low, high = apply_windowing(np.array([-1e9, 1e9]), ds)
    else:
        signed, bits = ds.PixelRepresentation, ds.BitsStored
        ends = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
        low, high = apply_modality_lut(np.array(ends, np.float64), ds)
    levels = np.floor(np.clip((shown - low) / (high - low), 0, 1) * 255 + 0.5)
    levels = 255 - levels if interpretation == "MONOCHROME1" else levels
    return np.repeat(levels.astype(np.uint8)[..., None], 3, axis=2)


def header_of(path: Path) -> Dataset:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pydicom.dcmread(path, force=True)


def difference(path: Path, ds: Dataset, part: tuple[int, ...]) -> int:
    """The largest difference in grey levels from pydicom's own pixels; raises `BadImage` for what is refused."""
    decoded = files.decode(source_of(path, part), READING, channels=3)
    assert (decoded.width, decoded.height) == (ds.Columns, ds.Rows)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wanted = by_pydicom(ds, part[0] if part else 0)
    return int(np.abs(decoded.pixels.astype(int) - wanted).max())


def table() -> str:
    """Markdown: a row for each transfer syntax and photometric interpretation with what became of its files."""
    read: dict[tuple[str, str], list[int]] = defaultdict(list)
    refused: dict[tuple[str, str], list[str]] = defaultdict(list)
    for path in all_files():
        found, ds = find(path), header_of(path)
        if not isinstance(found, BadImage) and found.no_image:
            continue
        syntax = getattr(ds, "file_meta", {}).get("TransferSyntaxUID")
        kind = syntax.name if syntax else "not named", str(ds.get("PhotometricInterpretation") or "none")
        if isinstance(found, BadImage):
            refused[kind].append(f"`{path.name}` {found}")
            continue
        try:
            read[kind].append(max(difference(path, ds, part) for part in found.parts))
        except BadImage as error:
            refused[kind].append(f"`{path.name}` {error}")
    lines = ["| transfer syntax | photometric interpretation | read | refused |", "|---|---|---|---|"]
    for kind in sorted({*read, *refused}):
        lines.append(f"| {' | '.join(kind)} | {len(read[kind]) or '–'} | {'; '.join(refused[kind]) or '–'} |")
    every = [number for numbers in read.values() for number in numbers]
    others = f", the others within {max(every)} grey levels" if any(every) else ""
    said = f"{every.count(0)} of the {len(every)} files that are read have pydicom's own pixels to the bit{others}."
    return "\n".join([*lines, "", said])


if __name__ == "__main__":
    print(table())
