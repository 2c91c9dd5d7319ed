"""Any picture file to upright 8-bit RGB, resized and re-encoded with nothing but its pixels left.

Decoding follows the paper's E.2.2 (bilinear, both sides to one size); what cannot be decoded safely is refused
with a reason (`BadPicture`), never guessed at.
"""

from __future__ import annotations

import io
import warnings
from importlib.metadata import version

import numpy as np
from PIL import Image, ImageOps, TiffImagePlugin, UnidentifiedImageError

try:
    import simplejpeg
except ImportError:  # Pillow gives the same bytes, more slowly
    simplejpeg = None

# Raised when the pixels that come out of `decode` or `resize` change: shards then are another dataset's.
REVISION = 1

MOST_PIXELS = 300_000_000
Image.MAX_IMAGE_PIXELS = MOST_PIXELS  # Pillow's own limit is lower and raises at twice its value
FORMATS = {"jpeg": "jpg", "webp": "webp", "png": "png"}
QUALITY = 95
DICOM_ADVICE = "is DICOM: export it as 8- or 16-bit PNG or TIFF with its window applied and identifiers removed"


class BadPicture(ValueError):
    """A file that is no usable picture; the message is the reason its quarantine entry gives."""


def decode(data: bytes) -> Image.Image:
    """The picture in `data` as upright RGB (PIL), metadata dropped; `BadPicture` with the reason otherwise.

    Alpha is laid over black. 16-bit greyscale maps its full range to 8 bits, never a picture's own minimum and
    maximum: intensities stay comparable between pictures.
    """
    if not data:
        raise BadPicture("is empty")
    if data[128:132] == b"DICM":
        raise BadPicture(DICOM_ADVICE)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's remarks on odd EXIF and large pictures; both are handled here
            with Image.open(io.BytesIO(data)) as picture:
                _check(picture)
                picture.load()
                upright = ImageOps.exif_transpose(picture)
                if picture.mode.startswith("I;16"):
                    return _from_wide(upright, *_range_of(picture))
                return _rgb(upright)
    except BadPicture:
        raise
    except UnidentifiedImageError:
        raise BadPicture("is no picture format known here (JPEG, PNG, TIFF, WebP, BMP, GIF, PPM)") from None
    except Image.DecompressionBombError:
        raise BadPicture(f"has more than {MOST_PIXELS:,} pixels; cut it into tiles first") from None
    except Exception as error:  # decoders raise anything on broken data, and none of it may stop a long job
        raise BadPicture(f"cannot be decoded: {str(error) or type(error).__name__}") from None


def _check(picture: Image.Image) -> None:
    if picture.width * picture.height > MOST_PIXELS:
        raise BadPicture(f"has more than {MOST_PIXELS:,} pixels; cut it into tiles first")
    pages = getattr(picture, "n_frames", 1)
    if pages > 1 and picture.format != "MPO":
        raise BadPicture(f"holds {pages} pictures; split it into single ones")
    if picture.mode in ("I", "F"):
        raise BadPicture("has signed or 32-bit pixels, whose range nobody states; convert it to unsigned 8 or 16 bits")


def _range_of(picture: Image.Image) -> tuple[int, int]:
    """The values of black and white: a TIFF can hold 12 bits or have 0 for white, and Pillow mends neither."""
    tags = picture.tag_v2 if isinstance(picture, TiffImagePlugin.TiffImageFile) else {}
    white = 2 ** int(tags.get(TiffImagePlugin.BITSPERSAMPLE, (16,))[0]) - 1
    return (white, 0) if tags.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION) == 0 else (0, white)


def _from_wide(picture: Image.Image, black: int, white: int) -> Image.Image:
    wide = abs(np.asarray(picture).astype(np.int64) - black)
    full = abs(white - black)
    return Image.fromarray(((wide * 255 + full // 2) // full).astype(np.uint8)).convert("RGB")


def _rgb(picture: Image.Image) -> Image.Image:
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        black = Image.new("RGBA", picture.size, (0, 0, 0, 255))
        return Image.alpha_composite(black, picture).convert("RGB")
    return picture.convert("RGB")


def resize(picture: Image.Image, size: int) -> Image.Image:
    """Both sides to `size` pixels, bilinear with antialiasing; the aspect ratio is not kept (E.2.2)."""
    if picture.size == (size, size):
        return picture
    return picture.resize((size, size), Image.Resampling.BILINEAR, reducing_gap=None)


def encode(picture: Image.Image, *, format: str, quality: int | None) -> bytes:
    """The picture as JPEG, WebP (lossless when `quality` is None) or PNG, carrying no metadata."""
    clean = Image.fromarray(np.asarray(picture))
    out = io.BytesIO()
    if format == "jpeg":
        clean.save(out, "JPEG", quality=QUALITY if quality is None else quality)
    elif format == "webp":
        clean.save(out, "WEBP", lossless=quality is None, quality=80 if quality is None else quality)
    else:
        clean.save(out, "PNG", compress_level=6)
    return out.getvalue()


def pixels(data: bytes, out: np.ndarray | None = None) -> np.ndarray:
    """The pixels of a shard's own picture, written to `out` where it is given: uint8 [height, width, 3]."""
    if simplejpeg is not None and data[:2] == b"\xff\xd8":
        found: np.ndarray = simplejpeg.decode_jpeg(data, "RGB", buffer=out)
        return found
    with Image.open(io.BytesIO(data)) as picture:
        found = np.asarray(picture.convert("RGB"))
    if out is None:
        return found
    np.copyto(out, found)
    return out


def decoder() -> str:
    """What `pixels` decodes JPEG with, and its version: `simplejpeg-1.9.0`."""
    name = "pillow" if simplejpeg is None else "simplejpeg"
    return f"{name}-{version(name)}"
