"""The one place that opens raw files: an allow-list of formats, and what a file is that is not read.

Pillow knows some fifty formats, and one of them runs a program (Ghostscript, for EPS). Only those of `ALLOWED` are ever
tried, whatever a file is called.
"""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import IO

from PIL import (  # noqa: F401  (a plugin that is imported is found without importing all others)
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageFile,
    JpegImagePlugin,
    MpoImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    UnidentifiedImageError,
    WebPImagePlugin,
)

MAX_PIXELS = 300_000_000
Image.MAX_IMAGE_PIXELS = MAX_PIXELS  # Pillow's own limit is lower and raises at twice its value
TOO_LARGE = f"has more than {MAX_PIXELS:,} pixels; cut it into tiles first"
ALLOWED = ("JPEG", "PNG", "TIFF", "WEBP", "BMP", "GIF", "PPM")  # Pillow opens a camera's MPO as JPEG
NAMES = "JPEG, PNG, TIFF, WebP, BMP, GIF, PPM"
DICOM_ADVICE = (
    "is DICOM: export it as 8- or 16-bit PNG or TIFF with its window applied and identifiers removed; only "
    "the commands shard and predict read it as it is"
)
NEXT_MOVE = "which is not read here; convert it to PNG or TIFF"

_READ = {
    "JPEG": rb"\xff\xd8\xff",
    "PNG": rb"\x89PNG\r\n\x1a\n",
    "TIFF": rb"II[*+]\0|MM\0[*+]",
    "WEBP": rb"RIFF....WEBP",
    "BMP": rb"BM",
    "GIF": rb"GIF8[79]a",
    "PPM": rb"P[1-6fFy0CH]\s",
}
"""How files of the allowed formats begin."""
_OTHERS = {
    "PostScript (EPS)": rb"%!PS|\xc5\xd0\xd3\xc6",
    "PDF": rb"%PDF-",
    "JPEG 2000": rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51",
    "JPEG XL": rb"\xff\x0a|\0\0\0\x0cJXL ",
    "AVIF or HEIC": rb"....ftyp(?:avi|hei|hev|mif|msf)",
    "NIfTI": rb"(?s:.{344})(?:n\+1|ni1)\0|(?s:.{4})n[+i]2\0",
    "encrypted (CMS)": rb"0(?s:.{1,5})\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x07[\x03\x06]",
    "NRRD": rb"NRRD0",
    "HDF5 or MATLAB": rb"\x89HDF|MATLAB ",
    "Photoshop (PSD)": rb"8BPS",
    "OpenEXR": rb"\x76\x2f\x31\x01",
    "a Windows icon": rb"\0\0[\x01\x02]\0[\x01-\x40]\0",
    "a video": rb"....ftyp|\x1aE\xdf\xa3|RIFF....AVI ",
    "gzip": rb"\x1f\x8b",
    "ZIP": rb"PK\x03\x04",
    "SVG, XML or HTML": rb"\s*<(?:\?xml|!doctype|svg|html)",
}
_JPEGS = {0xC3: "lossless", 0xCB: "lossless", 0xF7: "lossless (JPEG-LS)"}
_JPEGS |= dict.fromkeys((0xC5, 0xC6, 0xC7, 0xCD, 0xCE, 0xCF), "hierarchical")
_DICOM = re.compile(rb"(?s:.{128})DICM|[\x02\x08]\0[\0-\x20]\0(?:UL|UI|CS|DA|OB|SH|LO|TM|[\x02-\x40]\0\0\0)", re.DOTALL)
"""With its preamble, or a data set whose first element is of group 2 or 8, with or without its kind of value."""


class BadImage(ValueError):
    """A file that is not a usable image; the message is the reason in its quarantine entry."""


def open_image(source: bytes | Path, formats: tuple[str, ...] = ALLOWED) -> ImageFile.ImageFile:
    """Open a raw file: its header is read and no pixel. The caller closes it.

    Raises `BadImage` that says what the file is if it is none of `formats`, and as Pillow for broken headers.
    """
    file = io.BytesIO(source) if isinstance(source, bytes) else open(source, "rb")
    try:
        image = Image.open(file, formats=formats)
    except UnidentifiedImageError:
        file.seek(0)
        reason = why_not(file.read(1 << 16), file)
        file.close()
        raise BadImage(reason) from None
    except Image.DecompressionBombError:
        file.close()
        raise BadImage(TOO_LARGE) from None
    except BaseException:
        file.close()
        raise
    if isinstance(source, Path):
        image._exclusive_fp = True  # closing the image closes the file
    return image


def is_dicom(head: bytes) -> bool:
    """Whether a file that begins so is DICOM, with or without its preamble."""
    return _DICOM.match(head) is not None


def why_not(head: bytes, file: IO[bytes]) -> str:
    """Why a file that begins with `head` is not opened."""
    if is_dicom(head):
        return DICOM_ADVICE
    for name, pattern in _READ.items():
        if re.match(pattern, head, re.DOTALL):
            if name == "JPEG" and (reason := unread_jpeg(head)):
                return reason
            return f"is a {name.replace('WEBP', 'WebP')} file that cannot be read{_cause(name, file)}"
    for name, pattern in _OTHERS.items():
        if re.match(pattern, head, re.DOTALL | re.IGNORECASE):
            more = "; or read its slices: --slices" if name == "NIfTI" else ""
            return f"is {name}, {NEXT_MOVE} (read are {NAMES}){more}"
    return f"is no image format known here ({NAMES})"


def unread_jpeg(data: bytes) -> str | None:
    """What a JPEG is whose kind is not read: the marker of its frame says so (ITU-T T.81, table B.1)."""
    place = 2
    while place + 4 <= len(data) and data[place] == 0xFF:
        if kind := _JPEGS.get(data[place + 1]):
            return f"is a {kind} JPEG, {NEXT_MOVE}"
        place += 2 + int.from_bytes(data[place + 2 : place + 4], "big")
    return None


def _cause(name: str, file: IO[bytes]) -> str:
    """What Pillow's plugin says of a file of its format, which `Image.open` keeps to itself."""
    try:
        file.seek(0)
        Image.OPEN[name][0](file, "")
    except (SyntaxError, OSError) as error:
        text = str(error)
        if "unknown" in text:
            return f": {text}; its kind of pixels is not known here, convert it to 8- or 16-bit grey or RGB"
        return (
            f": {text}"
            if text and not re.search("not identified|unpack", text)
            else ": its header is damaged or cut off"
        )
    except Exception:  # plugins raise anything on broken headers
        return ": its header is damaged or cut off"
    return ""
