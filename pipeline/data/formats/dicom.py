"""DICOM: what the header says of the images in a file. Nothing of it leaves this room but hashes and known words.

Values of a header can hold names of people wherever a person may type, and damaged files can hold them anywhere. So no
value, and no text of an exception, is in a reason: a modality is a word of a list, everything else is hashed.
"""

from __future__ import annotations

import io
from typing import Any, BinaryIO

from pipeline.data.decoders.formats import BadImage
from pipeline.data.formats.reading import Found, Part, Reading, Secret, missing, pick
from pipeline.data.formats.words import no_words

MODALITIES = frozenset(
    "CR CT DX ES GM IO IVOCT IVUS MG MR NM OCT OP OPT OT PT PX RF RG SC SM US XA XC RTIMAGE DOC BI HC".split()
)
OTHER = "other"
IDS = {"patient": "PatientID", "study": "StudyInstanceUID", "series": "SeriesInstanceUID", "sop": "SOPInstanceUID"}
GROUPING = ("patient", "study", "series")
"""What images of one group share; the first that a header names is the group's."""
TAGS = [
    *IDS.values(),
    *("SOPClassUID", "Modality", "NumberOfFrames", "Rows", "Columns", "SamplesPerPixel", "BitsAllocated"),
    *("PhotometricInterpretation", "BurnedInAnnotation", "EncryptedAttributesSequence"),
]
BURNED_IN = "says that text is burnt into its pixels; check it, then --allow-burned-in takes all that say so"
TRUNCATED = "has no pixels although it is made to hold an image; it may be cut off"
STRAY = "is DICOM by its first bytes alone; nothing of a header follows"
DAMAGED = "is DICOM whose header is damaged or cut off"
_PIXELS = (b"\xe0\x7f\x10\x00", b"\x7f\xe0\x00\x10")
_FLOATS = (b"\xe0\x7f\x08\x00", b"\x7f\xe0\x00\x08", b"\xe0\x7f\x09\x00", b"\x7f\xe0\x00\x09")


def find_images(file: BinaryIO, reading: Reading, secret: Secret) -> Found:
    """What an open DICOM file holds, from its header; raises `BadImage` for what cannot be used."""
    try:
        import pydicom
    except ImportError:
        raise missing("medical", "pydicom") from None
    with no_words(DAMAGED):
        header = pydicom.dcmread(file, force=True, stop_before_pixels=True, specific_tags=TAGS)
        start = file.read(4)  # it stops in front of the pixels
        if not header.file_meta and not any(word in header for word in TAGS) and start not in (*_PIXELS, *_FLOATS):
            raise BadImage(STRAY)
        ids = {name: secret.hash(name, text) for name, word in IDS.items() if (text := _text(header, word))}
        no_image = _no_image(header, start)
        if no_image:
            return Found(no_image=no_image)
        _check(header, start, reading)
        return Found(
            parts=_parts(header, file.seek(0, io.SEEK_END), reading),
            kind=modality(header),
            id=secret.lasting_hash("sop", _text(header, IDS["sop"])) if "sop" in ids else None,
            is_keyed=secret.is_given,
            group=next((ids[name] for name in GROUPING if name in ids), None),
            ids=ids,
            unsure=_unsure(header),
        )


def modality(header: Any) -> str:
    """A modality of DICOM's list, or OTHER."""
    word = _text(header, "Modality").upper()
    return word if word in MODALITIES else OTHER


def class_of(header: Any) -> str | None:
    """DICOM's own name for what a file is made to hold: `CT Image Storage`; None where it is none of the standard's."""
    from pydicom.uid import UID_dictionary

    known = UID_dictionary.get(_text(header, "SOPClassUID") or _meta(header, "MediaStorageSOPClassUID"))
    return known[0] if known else None


def _no_image(header: Any, start: bytes) -> str | None:
    """What a file is that is made to hold no image; None for images, damaged ones too."""
    name = class_of(header)
    if name is None:
        known = any(word in header for word in ("SOPClassUID", "Rows"))
        return "DICOM of an unknown kind, without pixels" if known and start not in (*_PIXELS, *_FLOATS) else None
    return None if "Image" in name else f"DICOM that is no image: {name}"


def _check(header: Any, start: bytes, reading: Reading) -> None:
    if start in _FLOATS:
        raise BadImage("has pixels that are floating-point numbers, whose range nobody states")
    if start not in _PIXELS and not _is_deflated(header):
        raise BadImage(TRUNCATED if class_of(header) or "Rows" in header else DAMAGED)
    if _text(header, "BurnedInAnnotation").upper() == "YES" and not reading.allow_burned_in:
        raise BadImage(BURNED_IN)
    rows, columns, bits = (int(header.get(word) or 0) for word in ("Rows", "Columns", "BitsAllocated"))
    if not rows * columns * bits:
        raise BadImage("is DICOM without the size or the bits of its pixels")
    if bits > 16:
        raise BadImage(f"has pixels of {bits} bits; up to 16 are read")


def _is_deflated(header: Any) -> bool:
    return _meta(header, "TransferSyntaxUID") == "1.2.840.10008.1.2.1.99"


def _parts(header: Any, size: int, reading: Reading) -> tuple[Part, ...]:
    frames = int(header.get("NumberOfFrames") or 1)
    if frames == 1:
        return ((),)
    if frames < 1 or (frames > size and not _is_deflated(header)):
        raise BadImage("claims more frames than its bytes can hold")
    return tuple((number,) for number in pick(reading.frames or "all", frames, "--frames"))


def _unsure(header: Any) -> str | None:
    """US and secondary captures often have names burnt in, and few say whether they do."""
    kind = modality(header)
    if _text(header, "BurnedInAnnotation").upper() != "NO" and kind in ("US", "SC", "OT", "ES", "XC", "GM", "DOC"):
        return f"{kind} that does not say whether text is burnt into its pixels"
    return None


def _text(header: Any, word: str) -> str:
    value = header.get(word)
    return "" if value is None else str(value).strip(" \0")


def _meta(header: Any, word: str) -> str:
    value = getattr(header, "file_meta", {}).get(word)
    return "" if value is None else str(value).strip(" \0")
