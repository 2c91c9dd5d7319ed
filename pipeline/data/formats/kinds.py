"""What kind of file it is that Pillow alone does not read, told by its first bytes and never by its name."""

from __future__ import annotations

import re
import zlib
from typing import BinaryIO

from pipeline.data.decoders.formats import is_dicom
from pipeline.data.formats.reading import Reading

DICOM, NIFTI, SLIDE, PAGES = "dicom", "nifti", "slide", "pages"
REVISIONS = {DICOM: 1, NIFTI: 1, SLIDE: 1, PAGES: 1}
"""Raised when a reader gives other pixels: a dataset that holds such files then has another fingerprint."""
HEAD = 4096  # bytes that tell
_TIFF = re.compile(rb"II[*+]\0|MM\0[*+]")
_PAGES = re.compile(rb"II[*+]\0|MM\0[*+]|GIF8[79]a|RIFF....WEBP|\x89PNG\r\n\x1a\n", re.DOTALL)


def kind_of(file: BinaryIO, reading: Reading, *, in_tar: bool = False) -> str | None:
    """The kind of an open file, or None if `data/images` reads it, or refuses it, as it is.

    What holds several images is None too unless `reading` says which of them are wanted. Slides are read from files
    of their own alone, so what is `in_tar` is none.
    """
    head = file.read(HEAD)
    if is_dicom(head):
        return DICOM
    if reading.slices is not None and is_nifti(head):
        return NIFTI
    if reading.tiles is not None and not in_tar and _TIFF.match(head):
        return SLIDE
    if reading.frames is not None and _PAGES.match(head):
        return PAGES
    return None


def is_nifti(head: bytes) -> bool:
    """Whether a file begins as a NIfTI-1 or NIfTI-2 volume in one file, compressed or not."""
    if head[:2] == b"\x1f\x8b":
        try:
            head = zlib.decompressobj(wbits=31).decompress(head, 1024)
        except zlib.error:
            return False
    return head[344:348] in (b"n+1\0", b"ni1\0") or head[4:8] in (b"n+2\0", b"ni2\0")
