"""Every file that pydicom ships for its own tests: written as pydicom decodes it, or refused with the truth."""

from __future__ import annotations

import warnings
from pathlib import Path

import dicom_coverage
import hospital
import numpy as np
import pydicom
import pytest
from dicom_coverage import FOLDER, READING, all_files, difference, find, header_of, source_of
from repository import ROOT

from pipeline.data.decoders.formats import BadImage
from pipeline.data.formats import files

NO_IMAGE = "DICOM that is no image: "
CUT = "has no pixels although it is made to hold an image; it may be cut off"
HEADER = "is DICOM whose header is damaged or cut off"
PIXELS = "whose pixels are damaged, cut off or not what the header says"
REFUSED = {
    "JPEG-lossy.dcm": PIXELS,  # of its two codecs one reads no 12 bits and the other finds its scan's parameters wrong
    "JPEG2000-embedded-sequence-delimiter.dcm": PIXELS,
    "MR_truncated.dcm": PIXELS,
    "SC_rgb_rle_32bit.dcm": "has pixels of 32 bits; up to 16 are read",
    "SC_rgb_rle_32bit_2frame.dcm": "has pixels of 32 bits; up to 16 are read",
    "UN_sequence.dcm": CUT,
    "empty_charset_LEI.dcm": HEADER,
    "no_meta_group_length.dcm": CUT,
    "priv_SQ.dcm": CUT,
    "meta_missing_tsyntax.dcm": "is DICOM without the size or the bits of its pixels",
    "nested_priv_SQ.dcm": "is DICOM without the size or the bits of its pixels",
}
"""By their names; `IM…` are the images of TINY_ALPHA, which have no pixels."""


@pytest.mark.parametrize("path", all_files(), ids=lambda path: path.relative_to(FOLDER).as_posix())
def test_a_file_is_written_as_pydicom_decodes_it_or_refused_with_the_truth(path: Path) -> None:
    found = find(path)
    if isinstance(found, BadImage):
        assert str(found) == (CUT if path.name.startswith("IM0000") else REFUSED[path.name])
        return
    ds = header_of(path)
    if found.no_image:
        assert found.no_image.startswith(NO_IMAGE)
        assert "PixelData" not in ds or ds.SOPClassUID.name in ("Segmentation Storage", "RT Dose Storage")
        return
    assert len(found.parts) == int(ds.get("NumberOfFrames") or 1)
    for part in {found.parts[0], found.parts[-1]}:
        source = source_of(path, part)
        if path.name in REFUSED:
            with pytest.raises(BadImage, match=REFUSED[path.name]):
                files.decode(source, READING, channels=3)
            continue
        decoded = files.decode(source, READING, channels=3)
        assert difference(path, ds, part) <= (1 if "WindowCenter" in ds else 0)
        four = files.decode(source, READING, channels=4)
        assert (four.pixels[..., :3] == decoded.pixels).all()


def test_the_files_cover_what_is_claimed() -> None:
    """So that a release of pydicom with fewer files is noticed; its own names of transfer syntaxes."""
    syntaxes, interpretations = set(), set()
    for path in all_files():
        if not isinstance(found := find(path), BadImage) and not found.no_image and path.name not in REFUSED:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                ds = pydicom.dcmread(path, force=True, stop_before_pixels=True)
            syntaxes.add(str(ds.file_meta.TransferSyntaxUID))
            interpretations.add(ds.PhotometricInterpretation)
    base = "1.2.840.10008.1.2"
    assert syntaxes == {
        *(base, f"{base}.1", f"{base}.2", f"{base}.1.99", f"{base}.5"),  # implicit, explicit, big-endian, deflated, RLE
        *(f"{base}.4.{number}" for number in (50, 51, 70, 80, 81, 90, 91)),  # JPEG, lossless, JPEG-LS, JPEG 2000
    }
    grey, colour = {"MONOCHROME1", "MONOCHROME2", "PALETTE COLOR"}, {"RGB", "YBR_FULL", "YBR_FULL_422", "YBR_RCT"}
    assert interpretations == grey | colour


def test_the_table_in_the_documents_is_what_is_found() -> None:
    assert dicom_coverage.table() in (ROOT / "docs" / "datasets.md").read_text(encoding="utf-8")


def test_a_few_bytes_that_claim_any_number_of_frames_are_refused(tmp_path: Path) -> None:
    ds = hospital.with_pixels(hospital.header("CR"), np.zeros((8, 8), np.uint16))
    ds.NumberOfFrames = 300_000
    ds.file_meta.TransferSyntaxUID = pydicom.uid.DeflatedExplicitVRLittleEndian
    path = tmp_path / "packed.dcm"
    ds.save_as(path, enforce_file_format=True)
    assert path.stat().st_size < 2000
    assert str(find(path)) == "holds 300,000 images, more than 100,000"
