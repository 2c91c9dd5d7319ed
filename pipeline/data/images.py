"""Decode any image file to upright 8-bit RGB, resize it and encode it without metadata.

Resizing follows the paper's E.2.2 (bilinear, both sides to one size). A file that cannot be decoded safely is refused
with a reason (`BadImage`), never guessed at. A fast decoder takes intact JPEGs and Pillow takes all other files; the
pixels are the same. (docs/decisions/0009-fast-sharding.md)
"""

from __future__ import annotations

import io
import warnings
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from PIL import ExifTags, Image, ImageOps, TiffImagePlugin, UnidentifiedImageError

try:
    import simplejpeg
except ImportError:  # Pillow then decodes the same pixels, more slowly
    simplejpeg = None

# Add one when `decode` or `resize` gives other pixels: the fingerprint then says that it is another dataset.
REVISION = 2

MAX_PIXELS = 300_000_000
Image.MAX_IMAGE_PIXELS = MAX_PIXELS  # Pillow's own limit is lower and raises at twice its value
FORMATS = {"jpeg": "jpg", "webp": "webp", "png": "png"}  # in which shards store images, with their extensions
QUALITY = 95
COLOUR_SPACES = {3: "RGB", 4: "RGBX"}  # simplejpeg's names, by channels
BAND_PIXELS = 1 << 19  # resized at once, so that copies of the band stay in the CPU's cache
DICOM_ADVICE = "is DICOM: export it as 8- or 16-bit PNG or TIFF with its window applied and identifiers removed"


class BadImage(ValueError):
    """A file that is not a usable image; the message is the reason in its quarantine entry."""


class Decoded(NamedTuple):
    """The pixels of an image file, and the size of the image in the file."""

    pixels: np.ndarray
    """uint8 [height, width, 3 or 4], RGB, upright; smaller than the image in the file if it was decoded scaled."""
    width: int
    """Of the upright image in the file."""
    height: int


def decode(data: bytes, *, min_side: int = 0, channels: int = 3) -> Decoded:
    """Decode an image file as upright RGB without metadata; raises `BadImage` with the reason if it cannot be used.

    Alpha is blended over black. 16-bit greyscale maps its full range to 8 bits, never an image's own minimum and
    maximum, so intensities stay comparable between images. With `min_side`, an intact JPEG that is at least twice as
    large is decoded at a fraction of its size (n/8, in its DCT), with both sides at least `min_side` pixels. With
    `channels=4` each pixel has a fourth byte without meaning: resizing then takes three quarters of the time.
    """
    if not data:
        raise BadImage("is empty")
    if data[128:132] == b"DICM":
        raise BadImage(DICOM_ADVICE)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of odd EXIF and large images; both are handled here
            with Image.open(io.BytesIO(data)) as image:
                _check(image)
                if (pixels := _decode_jpeg(image, data, min_side, channels)) is not None:
                    return Decoded(pixels, *image.size)
                image.load()
                upright = ImageOps.exif_transpose(image)
                is_16_bit = image.mode.startswith("I;16")
                rgb = _rgb_of_16_bit(upright, *_black_and_white(image)) if is_16_bit else _rgb(upright)
                return Decoded(np.asarray(rgb if channels == 3 else rgb.convert("RGBX")), *rgb.size)
    except BadImage:
        raise
    except UnidentifiedImageError:
        raise BadImage("is no image format known here (JPEG, PNG, TIFF, WebP, BMP, GIF, PPM)") from None
    except Image.DecompressionBombError:
        raise BadImage(f"has more than {MAX_PIXELS:,} pixels; cut it into tiles first") from None
    except Exception as error:  # decoders raise anything on broken data, and nothing may stop a long job
        raise BadImage(f"cannot be decoded: {str(error) or type(error).__name__}") from None


def _check(image: Image.Image) -> None:
    if image.width * image.height > MAX_PIXELS:
        raise BadImage(f"has more than {MAX_PIXELS:,} pixels; cut it into tiles first")
    pages = getattr(image, "n_frames", 1)
    if pages > 1 and image.format != "MPO":
        raise BadImage(f"holds {pages} images; split it into single ones")
    if image.mode in ("I", "F"):
        raise BadImage("has signed or 32-bit pixels, whose range nobody states; convert it to unsigned 8 or 16 bits")


def _decode_jpeg(image: Image.Image, data: bytes, min_side: int, channels: int) -> np.ndarray | None:
    """The pixels of an intact, upright, grey or RGB JPEG, equal to Pillow's if `min_side` is 0; None for all others."""
    upright = image.getexif().get(ExifTags.Base.Orientation, 1) == 1
    if simplejpeg is None or image.format != "JPEG" or image.mode not in ("RGB", "L") or not upright:
        return None
    try:
        pixels: np.ndarray = simplejpeg.decode_jpeg(
            data, COLOUR_SPACES[channels], min_height=min_side, min_width=min_side, min_factor=2 if min_side else 1
        )
    except ValueError:  # simplejpeg raises at every warning; Pillow decides whether the file can be used
        return None
    return pixels


def _black_and_white(image: Image.Image) -> tuple[int, int]:
    """The values of black and white: a TIFF can hold 12 bits or have 0 for white, and Pillow corrects neither."""
    tags = image.tag_v2 if isinstance(image, TiffImagePlugin.TiffImageFile) else {}
    white = 2 ** int(tags.get(TiffImagePlugin.BITSPERSAMPLE, (16,))[0]) - 1
    return (white, 0) if tags.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION) == 0 else (0, white)


def _rgb_of_16_bit(image: Image.Image, black: int, white: int) -> Image.Image:
    wide = abs(np.asarray(image).astype(np.int64) - black)
    full = abs(white - black)
    return Image.fromarray(((wide * 255 + full // 2) // full).astype(np.uint8)).convert("RGB")


def _rgb(image: Image.Image) -> Image.Image:
    if image.has_transparency_data:
        image = image.convert("RGBA")
        black = Image.new("RGBA", image.size, (0, 0, 0, 255))
        return Image.alpha_composite(black, image).convert("RGB")
    return image.convert("RGB")


def resize(pixels: np.ndarray, size: int) -> np.ndarray:
    """Resize uint8 [h, w, c] to [size, size, c], bilinear with antialiasing; the aspect ratio is not kept (E.2.2).

    Rows are resized first and then columns, as in Pillow and torchvision: the result equals torchvision's to the bit
    and is within one grey level of Pillow's. `c` is 3 or 4.
    """
    height, width, channels = pixels.shape
    if (height, width) == (size, size):
        return pixels
    rows = max(1, BAND_PIXELS // width)
    bands = (pixels[start : start + rows] for start in range(0, height, rows))
    narrow = b"".join(_resize_packed(band.tobytes(), (width, len(band)), (size, len(band)), channels) for band in bands)
    scaled = _resize_packed(narrow, (size, height), (size, size), channels)
    return np.frombuffer(scaled, np.uint8).reshape(size, size, channels)


def _resize_packed(pixels: bytes, source: tuple[int, int], target: tuple[int, int], channels: int) -> bytes:
    """Resize packed pixels from the size `source` (width, height) to the size `target`."""
    from cykooz_resizer import ImageData, PixelType

    resizer, bilinear = _resizer()
    kind = PixelType.U8x3 if channels == 3 else PixelType.U8x4
    image = ImageData(*target, kind)
    resizer.resize(ImageData(*source, kind, pixels), image, bilinear)
    data: bytes = image.get_buffer()
    return data


@cache
def _resizer() -> tuple[Any, Any]:
    from cykooz_resizer import FilterType, ResizeAlg, ResizeOptions, Resizer

    return Resizer(), ResizeOptions(ResizeAlg.convolution(FilterType.bilinear), use_alpha=False)


def encode(pixels: np.ndarray, *, format: str, quality: int | None) -> bytes:
    """Encode uint8 [h, w, 3 or 4] without metadata as JPEG (4:2:0), WebP (lossless if `quality` is None) or PNG."""
    if format == "jpeg":
        data: bytes = simplejpeg.encode_jpeg(
            np.ascontiguousarray(pixels), QUALITY if quality is None else quality, COLOUR_SPACES[pixels.shape[2]], "420"
        )
        return data
    pixels = pixels[..., :3]
    out = io.BytesIO()
    if format == "webp":
        Image.fromarray(pixels).save(out, "WEBP", lossless=quality is None, quality=80 if quality is None else quality)
    else:
        Image.fromarray(pixels).save(out, "PNG", compress_level=6)
    return out.getvalue()


def decode_stored(data: bytes, out: np.ndarray | None = None) -> np.ndarray:
    """Decode an image that `encode` made, to uint8 [height, width, 3]; the pixels are written to `out` if given."""
    if simplejpeg is not None and data[:2] == b"\xff\xd8":
        pixels: np.ndarray = simplejpeg.decode_jpeg(data, "RGB", buffer=out)
        return pixels
    with Image.open(io.BytesIO(data)) as image:
        pixels = np.asarray(image.convert("RGB"))
    if out is None:
        return pixels
    np.copyto(out, pixels)
    return out


def stored_decoder() -> str:
    """The library that decodes JPEG in `decode_stored`, and its version: `simplejpeg-1.9.0`."""
    name = "pillow" if simplejpeg is None else "simplejpeg"
    from importlib.metadata import version  # imported here because workers do not need it

    return f"{name}-{version(name)}"
