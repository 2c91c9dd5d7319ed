"""A hospital's own files of realistic size, drawn: CT, photographs in DICOM, volumes, a slide, and tars of JPEGs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.benchmarks.support.measure import Settings
from pipeline.core import files
from pipeline.data import images

CELL = 16  # pixels of a drawn patch


def folder_of(settings: Settings, name: str, fill: Callable[[Path], object]) -> Path:
    """A folder that `fill` made, kept between runs."""
    folder = settings.scratch / f"formats-{name}{'-quick' * settings.quick}"
    if not folder.exists():
        settings.say(f"making {folder.name}")
        with files.publish_folder(folder) as out:
            fill(out)
    return folder


def patches(rng: np.random.Generator, height: int, width: int, top: int) -> np.ndarray:
    """Noise over patches, as scans have it, int64 [height, width] from 0 to `top`."""
    coarse = rng.integers(0, top, (-(-height // CELL), -(-width // CELL)))
    fine = np.kron(coarse, np.ones((CELL, CELL), int))[:height, :width]
    return np.clip(fine + rng.normal(0, top / 60, (height, width)), 0, top).astype(np.int64)


def ct_slices(out: Path, count: int, side: int) -> None:
    """Slices of 16 bits, uncompressed, ten a patient."""
    rng = np.random.default_rng(0)
    for number in range(count):
        ds = _header(number, "CT", "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.1.2.1")
        ds.RescaleSlope, ds.RescaleIntercept = 1, -1024
        pixels = patches(rng, side, side, 2500).astype(np.int16)
        _size(ds, pixels, "MONOCHROME2", bits=16)
        ds.PixelRepresentation = 1
        ds.PixelData = pixels.tobytes()
        ds.save_as(out / f"{number:06d}", enforce_file_format=True)


def long_loops(out: Path, count: int, frames: int) -> None:
    """Files of very many tiny frames."""
    for number in range(count):
        ds = _header(10 * number, "US", "1.2.840.10008.5.1.4.1.1.3.1", "1.2.840.10008.1.2.1")
        _size(ds, np.zeros((2, 2), np.uint8), "MONOCHROME2", bits=8)
        ds.NumberOfFrames = frames
        ds.PixelData = np.random.default_rng(number).bytes(4 * frames)
        ds["PixelData"].VR = "OB"
        ds.save_as(out / f"{number}", enforce_file_format=True)


def photographs(out: Path, count: int, width: int, height: int) -> None:
    """Photographs in baseline JPEG."""
    from pydicom.encaps import encapsulate

    rng = np.random.default_rng(1)
    for number in range(count):
        ds = _header(number, "XC", "1.2.840.10008.5.1.4.1.1.77.1.4", "1.2.840.10008.1.2.4.50")
        pixels = np.stack([patches(rng, height, width, 255) for _ in range(3)], 2).astype(np.uint8)
        _size(ds, pixels, "YBR_FULL_422", bits=8)
        ds.PixelData = encapsulate([images.encode(pixels, format="jpeg", quality=95)])
        ds["PixelData"].VR = "OB"
        ds.save_as(out / f"{number:06d}", enforce_file_format=True)


def _header(number: int, modality: str, kind: str, syntax: str) -> Any:
    from pydicom.dataset import Dataset, FileMetaDataset

    ds, root = Dataset(), "1.2.826.0.1.3680043.10.998"
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = syntax
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID = kind
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID = f"{root}.{number // 10}.1.{number}"
    ds.StudyInstanceUID, ds.SeriesInstanceUID = f"{root}.{number // 10}", f"{root}.{number // 10}.1"
    ds.PatientID, ds.Modality, ds.BurnedInAnnotation = f"P{number // 10}", modality, "NO"
    return ds


def _size(ds: Any, pixels: np.ndarray, interpretation: str, *, bits: int) -> None:
    ds.Rows, ds.Columns = pixels.shape[:2]
    ds.SamplesPerPixel = 3 if pixels.ndim == 3 else 1
    if pixels.ndim == 3:
        ds.PlanarConfiguration = 0
    ds.PhotometricInterpretation, ds.PixelRepresentation = interpretation, 0
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = bits, bits, bits - 1


def volumes(out: Path, count: int, side: int, slices: int) -> None:
    """Compressed NIfTI of 16 bits."""
    import nibabel

    rng = np.random.default_rng(2)
    for number in range(count):
        values = np.stack([patches(rng, side, side, 1800) for _ in range(slices)], 2).astype(np.int16)
        nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), out / f"{number}.nii.gz")


def slide(out: Path, side: int) -> None:
    """A pyramid of deflated tiles, tissue all over."""
    import tifffile

    rng = np.random.default_rng(3)
    pixels = np.stack([patches(rng, side, side, 255) for _ in range(3)], 2).astype(np.uint8)
    pixels[..., 1] //= 3
    with tifffile.TiffWriter(out / "slide.tif") as file:
        common: dict[str, Any] = {"photometric": "rgb", "tile": (256, 256), "compression": "deflate"}
        file.write(pixels, resolution=(20_000, 20_000), resolutionunit="CENTIMETER", **common)
        file.write(np.ascontiguousarray(pixels[::4, ::4]), subfiletype=1, **common)


def tars(out: Path, paths: list[Path], a_tar: int = 100) -> None:
    """JPEGs as img2dataset stores them: image, text and json of a sample."""
    from webdataset import TarWriter

    for number in range(0, len(paths), a_tar):
        with TarWriter(str(out / f"{number // a_tar:05d}.tar")) as tar:
            for place, path in enumerate(paths[number : number + a_tar]):
                facts = {"label": path.parent.name}
                tar.write({"__key__": f"{number + place:09d}", "jpg": path.read_bytes(), "txt": "x", "json": facts})
