"""Files as hospitals have them, made here: DICOM of every kind that is read, with known ids and pixels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom import uid
from pydicom.dataset import Dataset, FileMetaDataset

CLASSES = {
    "CT": uid.CTImageStorage,
    "MR": uid.MRImageStorage,
    "CR": uid.ComputedRadiographyImageStorage,
    "US": uid.UltrasoundMultiFrameImageStorage,
    "MG": uid.DigitalMammographyXRayImageStorageForPresentation,
    "OT": uid.SecondaryCaptureImageStorage,
}
ROOT = "1.2.826.0.1.3680043.10.999"


def test_files() -> Path:
    """The folder of the files that pydicom ships for its own tests."""
    return Path(pydicom.__file__).parent / "data" / "test_files"


test_files.__test__ = False  # type: ignore[attr-defined]


def header(modality: str, *, patient: str = "P1", study: int = 1, series: int = 1, number: int = 1) -> Dataset:
    """A header without pixels; its ids follow from the numbers."""
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    ds.SOPClassUID = CLASSES[modality]
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID
    ds.SOPInstanceUID = f"{ROOT}.{study}.{series}.{number}"
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    ds.SeriesInstanceUID = f"{ROOT}.{study}.{series}"
    ds.StudyInstanceUID = f"{ROOT}.{study}"
    ds.Modality = modality
    ds.PatientID = patient
    ds.PatientName = "Doe^Jane"
    return ds


def with_pixels(
    ds: Dataset, pixels: np.ndarray, *, bits: int | None = None, interpretation: str | None = None
) -> Dataset:
    """Grey [h, w] or [n, h, w], or colour [h, w, 3], as stored."""
    colour = pixels.ndim >= 3 and pixels.shape[-1] == 3
    ds.SamplesPerPixel = 3 if colour else 1
    ds.PhotometricInterpretation = interpretation or ("RGB" if colour else "MONOCHROME2")
    if colour:
        ds.PlanarConfiguration = 0
    frames = pixels.shape[: pixels.ndim - (3 if colour else 2)]
    if frames:
        ds.NumberOfFrames = frames[0]
    ds.Rows, ds.Columns = pixels.shape[len(frames) : len(frames) + 2]
    ds.BitsAllocated = 8 * pixels.itemsize
    ds.BitsStored = bits or ds.BitsAllocated
    ds.HighBit = ds.BitsStored - 1
    ds.PixelRepresentation = int(pixels.dtype.kind == "i")
    data = pixels.tobytes()
    ds.PixelData = data + b"\0" * (len(data) % 2)
    return ds


def save(ds: Dataset, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    ds.save_as(path, enforce_file_format=True)
    return path


def slices(folder: Path, *, patients: int = 4, each: int = 3, side: int = 24, **more: Any) -> Path:
    """CT slices of some patients, a study and a series each; all pixels differ."""
    rng = np.random.default_rng(5)
    for patient in range(patients):
        for number in range(each):
            ds = header("CT", patient=f"PAT{patient}", study=patient + 1, number=number + 1)
            ds.RescaleSlope, ds.RescaleIntercept = 1, -1024
            blocks = np.kron(rng.integers(0, 1800, (side // 4, side // 4)), np.ones((4, 4)))
            for word, value in more.items():
                setattr(ds, word, value)
            save(with_pixels(ds, blocks.astype(np.int16)), folder / f"{patient}-{number}.dcm")
    return folder
