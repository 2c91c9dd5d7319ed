"""DICOM: the pixels of one frame as upright 8-bit RGB, as pydicom and its codecs decode them."""

from __future__ import annotations

import io
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from pipeline.data import members
from pipeline.data.decoders import budget, formats, jpeg
from pipeline.data.decoders.formats import BadImage
from pipeline.data.formats.dicom import DAMAGED, modality
from pipeline.data.formats.levels import grey_levels, scaled, uses_percentiles
from pipeline.data.formats.reading import Part, Reading, Stamp, missing
from pipeline.data.formats.words import no_words
from pipeline.data.images import Decoded

GREY, PALETTE = ("MONOCHROME1", "MONOCHROME2"), "PALETTE COLOR"
COLOURS = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_RCT", "YBR_ICT")
DEFLATED = "1.2.840.10008.1.2.1.99"
PLAIN_JPEG = ("1.2.840.10008.1.2.4.50",)
BYTES = 24  # a pixel at most: as stored, as pydicom turns it, as RGB with a fourth byte
FRAMES, VALUES = 9, 256  # of a file, and of a frame, whose values give the percentiles
FUNCTIONAL = {
    "PixelValueTransformationSequence": ("RescaleIntercept", "RescaleSlope"),
    "FrameVOILUTSequence": ("WindowCenter", "WindowWidth", "VOILUTFunction"),
}
"""Of enhanced multi-frame files: where each frame has its scale and its window."""


def decode(
    file: BinaryIO,
    part: Part,
    reading: Reading,
    *,
    channels: int,
    memory: int | None = None,
    ends: tuple[float, float] | None = None,
    kept: tuple[Path, Stamp] | None = None,
) -> Decoded:
    """The pixels of a frame of an open DICOM file; raises `BadImage` with a reason that quotes no value.

    `ends` are black and white where percentiles are the window. `kept` is the file's name, and what tells its version,
    if more of its frames will be asked for.
    """
    opened = _kept(*kept) if kept else _read_header(file, whole=not part)
    pixels, header = _stored(file, opened, part, memory)
    with no_words(DAMAGED):
        rgb, said = _rgb(pixels, header, reading, channels, ends)
        return Decoded(rgb, rgb.shape[1], rgb.shape[0], (said,))


def sample_values(file: BinaryIO, parts: tuple[Part, ...], reading: Reading) -> np.ndarray | None:
    """Some values of a file whose window is between percentiles, float32 [n]; None for all others.

    They are on the modality's scale, from up to FRAMES frames. A file that cannot be decoded has none; pass two says
    why.
    """
    out = []
    try:
        opened = _read_header(file, whole=parts == ((),))
        for part in parts[:: -(-len(parts) // FRAMES)]:
            pixels, header = _stored(file, opened, part, None)
            with no_words(DAMAGED):
                if pixels.ndim != 2 or not uses_percentiles(header, reading.window):
                    return None
                values = scaled(pixels.reshape(-1)[:: -(-pixels.size // VALUES)], header)
                out.append(np.asarray(values, np.float32))
    except BadImage:
        return None
    return np.concatenate(out)


class Opened(NamedTuple):
    """The header of a file, which may be long: it is read once for all of its frames."""

    header: Any
    """With the pixels if the file is read as a whole."""
    start: int
    """Where the element of the pixels begins."""
    size: int
    """Bytes of the file."""


def _read_header(file: BinaryIO, *, whole: bool) -> Opened:
    """The header of an open file. One that no frame can be read of alone is read as a whole."""
    try:
        import pydicom
    except ImportError:
        raise missing("medical", "pydicom") from None
    with no_words(DAMAGED):
        file.seek(0)
        header = pydicom.dcmread(file, force=True, stop_before_pixels=not whole)
        start = file.tell()
        was_named = _name_syntax(header)
        if not whole and (header.file_meta.TransferSyntaxUID == DEFLATED or not was_named):
            file.seek(0)
            meta, header = header.file_meta, pydicom.dcmread(file, force=True)
            header.file_meta = meta
        return Opened(header, start, file.seek(0, io.SEEK_END))


@lru_cache(maxsize=1)
def _kept(path: Path, stamp: Stamp) -> Opened:
    """The header of a file of many frames, which are asked for one after another."""
    with members.open_raw(path) as file:
        return _read_header(file, whole=False)


def _stored(file: BinaryIO, opened: Opened, part: Part, memory: int | None) -> tuple[np.ndarray, Any]:
    """The pixels of a frame as they are stored, colours as RGB; and the header of that frame."""
    from pydicom.pixels import as_pixel_options, get_decoder, pixel_array

    index, header = part[0] if part else 0, opened.header
    has_pixels = "PixelData" in header
    with no_words(DAMAGED):
        syntax = header.file_meta.TransferSyntaxUID
        _check(header, memory, 2 * opened.size if has_pixels else 0)
        if str(syntax) in PLAIN_JPEG:
            _check_jpeg(
                io.BytesIO(header.PixelData) if has_pixels else file,
                0 if has_pixels else opened.start + 12,
                header,
                index,
            )
    try:
        with no_words(DAMAGED):
            if has_pixels:
                return pixel_array(header, index=index), _of_frame(header, index)
            file.seek(opened.start + (8 if syntax.is_implicit_VR else 12))
            options = {**as_pixel_options(header), "pixel_keyword": "PixelData"}
            pixels = get_decoder(syntax).as_array(file, index=index, validate=True, **options)[0]
            return pixels, _of_frame(header, index)
    except BadImage as error:
        raise BadImage(_why(header, str(error))) from None


def _name_syntax(header: Any) -> bool:
    """Whether a file names its transfer syntax; one that does not gets the one that its first bytes were read by."""
    from pydicom import uid
    from pydicom.dataset import FileMetaDataset

    if getattr(header, "file_meta", None) is None:
        header.file_meta = FileMetaDataset()
    if header.file_meta.get("TransferSyntaxUID"):
        return True
    known = {(True, True): uid.ImplicitVRLittleEndian, (False, False): uid.ExplicitVRBigEndian}
    header.file_meta.TransferSyntaxUID = known.get(header.original_encoding, uid.ExplicitVRLittleEndian)
    return False


def _check(header: Any, memory: int | None, held: int) -> None:
    """Raise `BadImage` for what is not read; `held`: bytes of the file that are in memory."""
    from pydicom.pixels import get_decoder

    syntax = header.file_meta.TransferSyntaxUID
    name = syntax.name if syntax.name != str(syntax) else "an unknown transfer syntax"
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError:
        raise BadImage(f"is DICOM in {name}, which is not read here") from None
    if not (decoder.is_native or decoder.is_available):
        raise missing("medical", f"pylibjpeg, for {name}")
    rows, columns = int(header.Rows), int(header.Columns)
    if rows * columns > formats.MAX_PIXELS:
        raise BadImage(formats.TOO_LARGE)
    interpretation = str(header.get("PhotometricInterpretation")).strip()
    if interpretation not in (*GREY, PALETTE, *COLOURS):
        raise BadImage("is DICOM with a photometric interpretation that is not read here")
    needed = rows * columns * BYTES + held + budget.FIXED
    if memory is not None and needed > memory:
        raise BadImage(
            f"needs {budget.gigabytes(needed)} of memory for its {columns:,} × {rows:,} pixels, more than the "
            f"{budget.gigabytes(memory)} that a worker may take; use fewer workers"
        )


def _check_jpeg(file: BinaryIO, start: int, header: Any, index: int) -> None:
    """Raise `BadImage` if the JPEG of a frame, of those from `start` on, is damaged: its decoder would fill it up."""
    from pydicom.encaps import get_frame

    file.seek(start)
    try:
        frame = get_frame(file, index, number_of_frames=int(header.get("NumberOfFrames") or 1))
    except ValueError:  # pydicom may find it in another way
        return
    jpeg.check(frame[:-1] if frame.endswith(b"\xff\xd9\0") else frame)


def _why(header: Any, said: str) -> str:
    """Why the pixels of a file could not be decoded."""
    if said.startswith(DAMAGED):
        return f"is DICOM ({modality(header)}) whose pixels are damaged, cut off or not what the header says"
    return said


def _of_frame(header: Any, index: int) -> Any:
    """The header with the scale and the window of a frame, where enhanced files keep them; it is not changed."""
    shared = header.get("SharedFunctionalGroupsSequence") or []
    each = header.get("PerFrameFunctionalGroupsSequence") or []
    groups = [*shared[:1], *([each[index]] if index < len(each) else [])]
    if not groups:
        return header
    header = header[:]  # a copy
    for group in groups:
        for sequence, words in FUNCTIONAL.items():
            for item in (group.get(sequence) or [])[:1]:
                for word in words:
                    if word in item:
                        setattr(header, word, getattr(item, word))
    return header


def _rgb(
    pixels: np.ndarray, header: Any, reading: Reading, channels: int, ends: tuple[float, float] | None
) -> tuple[np.ndarray, str]:
    """uint8 [h, w, channels], and how the values became levels."""
    interpretation = str(header.PhotometricInterpretation).strip()
    out = np.zeros((*pixels.shape[:2], channels), np.uint8)
    kind = modality(header)
    if interpretation in GREY:
        if pixels.ndim != 2:
            raise BadImage("is DICOM whose pixels are not what the header says")
        levels, said = grey_levels(pixels, header, reading.window, ends)
        out[..., :3] = levels[..., None]
        return out, said
    if interpretation == PALETTE:
        from pydicom.pixels import apply_color_lut

        pixels = apply_color_lut(pixels, header)[..., :3]
        bits = int(header.RedPaletteColorLookupTableDescriptor[2])
        said = f"{kind} in the colours of each file's palette"
    else:
        bits = int(header.get("BitsStored") or 8 * pixels.itemsize)
        said = f"{kind} in colour, as it is stored"
    out[..., :3] = pixels if bits == 8 else high_byte(pixels, bits)
    return out, said


def high_byte(pixels: np.ndarray, bits: int) -> np.ndarray:
    """Colours of more than 8 bits by the full range, as other files of 16-bit colour: the high byte."""
    out: np.ndarray = (pixels >> max(0, bits - 8)).astype(np.uint8)
    return out
