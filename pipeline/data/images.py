"""Any image file to upright 8-bit RGB, resized and re-encoded with nothing but its pixels left.

Decoding follows the paper's E.2.2 (bilinear, both sides to one size); what cannot be decoded safely is refused
with a reason (`BadImage`), never guessed at. Faultless JPEGs take a fast decoder, all else Pillow's; the pixels are
the same. (docs/decisions/0009-fast-sharding.md)
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
except ImportError:  # decoding is Pillow's then: the same pixels, more slowly
    simplejpeg = None

# Raised when the pixels that come out of `decode` or `resize` change: shards then are another dataset's.
REVISION = 2

MOST_PIXELS = 300_000_000
Image.MAX_IMAGE_PIXELS = MOST_PIXELS  # Pillow's own limit is lower and raises at twice its value
FORMATS = {"jpeg": "jpg", "webp": "webp", "png": "png"}
DECODERS = ("exact", "dct")
QUALITY = 95
COLOURS = {3: "RGB", 4: "RGBX"}  # what simplejpeg calls them
BAND_PIXELS = 1 << 19  # of what is resized at once: its copies stay in the cache
DICOM_ADVICE = "is DICOM: export it as 8- or 16-bit PNG or TIFF with its window applied and identifiers removed"


class BadImage(ValueError):
    """A file that is no usable image; the message is the reason its quarantine entry gives."""


class Decoded(NamedTuple):
    """An image with nothing but its pixels."""

    pixels: np.ndarray
    """uint8 [height, width, 3 or 4], RGB, upright; fewer than the source's where it was decoded scaled."""
    width: int
    """Of the source, upright."""
    height: int


def decode(data: bytes, *, least: int = 0, channels: int = 3) -> Decoded:
    """The image in `data` as upright RGB, metadata dropped; `BadImage` with the reason otherwise.

    Alpha is laid over black. 16-bit greyscale maps its full range to 8 bits, never an image's own minimum and
    maximum: intensities stay comparable between images. With `least`, a faultless JPEG that is at least twice as
    large is decoded at a fraction of its size (n/8, in its DCT), both sides being `least` pixels or more. With
    `channels=4` each pixel has a fourth byte that means nothing: so it is resized in three quarters of the time.
    """
    if not data:
        raise BadImage("is empty")
    if data[128:132] == b"DICM":
        raise BadImage(DICOM_ADVICE)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's remarks on odd EXIF and large images; both are handled here
            with Image.open(io.BytesIO(data)) as image:
                _check(image)
                if (pixels := _jpeg(image, data, least, channels)) is not None:
                    return Decoded(pixels, *image.size)
                image.load()
                upright = ImageOps.exif_transpose(image)
                wide = image.mode.startswith("I;16")
                rgb = _from_wide(upright, *_range_of(image)) if wide else _rgb(upright)
                return Decoded(np.asarray(rgb if channels == 3 else rgb.convert("RGBX")), *rgb.size)
    except BadImage:
        raise
    except UnidentifiedImageError:
        raise BadImage("is no image format known here (JPEG, PNG, TIFF, WebP, BMP, GIF, PPM)") from None
    except Image.DecompressionBombError:
        raise BadImage(f"has more than {MOST_PIXELS:,} pixels; cut it into tiles first") from None
    except Exception as error:  # decoders raise anything on broken data, and none of it may stop a long job
        raise BadImage(f"cannot be decoded: {str(error) or type(error).__name__}") from None


def _check(image: Image.Image) -> None:
    if image.width * image.height > MOST_PIXELS:
        raise BadImage(f"has more than {MOST_PIXELS:,} pixels; cut it into tiles first")
    pages = getattr(image, "n_frames", 1)
    if pages > 1 and image.format != "MPO":
        raise BadImage(f"holds {pages} images; split it into single ones")
    if image.mode in ("I", "F"):
        raise BadImage("has signed or 32-bit pixels, whose range nobody states; convert it to unsigned 8 or 16 bits")


def _jpeg(image: Image.Image, data: bytes, least: int, channels: int) -> np.ndarray | None:
    """The pixels of an upright grey or RGB JPEG without a fault, with `least=0` Pillow's own; None for all else."""
    upright = image.getexif().get(ExifTags.Base.Orientation, 1) == 1
    if simplejpeg is None or image.format != "JPEG" or image.mode not in ("RGB", "L") or not upright:
        return None
    try:
        pixels: np.ndarray = simplejpeg.decode_jpeg(
            data, COLOURS[channels], min_height=least, min_width=least, min_factor=2 if least else 1
        )
    except ValueError:  # it counts every warning as a fault; Pillow says whether the file can be used
        return None
    return pixels


def _range_of(image: Image.Image) -> tuple[int, int]:
    """The values of black and white: a TIFF can hold 12 bits or have 0 for white, and Pillow mends neither."""
    tags = image.tag_v2 if isinstance(image, TiffImagePlugin.TiffImageFile) else {}
    white = 2 ** int(tags.get(TiffImagePlugin.BITSPERSAMPLE, (16,))[0]) - 1
    return (white, 0) if tags.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION) == 0 else (0, white)


def _from_wide(image: Image.Image, black: int, white: int) -> Image.Image:
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
    """uint8 [h, w, c] to [size, size, c], bilinear with antialiasing; the aspect ratio is not kept (E.2.2).

    Rows first and then columns, as Pillow and torchvision do: the result is torchvision's to the bit, and within a
    grey level of Pillow's. `c` is 3 or 4.
    """
    height, width, channels = pixels.shape
    if (height, width) == (size, size):
        return pixels
    rows = max(1, BAND_PIXELS // width)
    bands = (pixels[start : start + rows] for start in range(0, height, rows))
    narrow = b"".join(_scaled(band.tobytes(), (width, len(band)), (size, len(band)), channels) for band in bands)
    scaled = _scaled(narrow, (size, height), (size, size), channels)
    return np.frombuffer(scaled, np.uint8).reshape(size, size, channels)


def _scaled(pixels: bytes, source: tuple[int, int], target: tuple[int, int], channels: int) -> bytes:
    """Packed pixels of `source` (width, height) as packed pixels of `target`."""
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
    """uint8 [h, w, 3 or 4] as JPEG (4:2:0), WebP (lossless when `quality` is None) or PNG, carrying no metadata."""
    if format == "jpeg":
        data: bytes = simplejpeg.encode_jpeg(
            np.ascontiguousarray(pixels), QUALITY if quality is None else quality, COLOURS[pixels.shape[2]], "420"
        )
        return data
    pixels = pixels[..., :3]
    out = io.BytesIO()
    if format == "webp":
        Image.fromarray(pixels).save(out, "WEBP", lossless=quality is None, quality=80 if quality is None else quality)
    else:
        Image.fromarray(pixels).save(out, "PNG", compress_level=6)
    return out.getvalue()


def pixels(data: bytes, out: np.ndarray | None = None) -> np.ndarray:
    """The pixels of a shard's own image, written to `out` where it is given: uint8 [height, width, 3]."""
    if simplejpeg is not None and data[:2] == b"\xff\xd8":
        found: np.ndarray = simplejpeg.decode_jpeg(data, "RGB", buffer=out)
        return found
    with Image.open(io.BytesIO(data)) as image:
        found = np.asarray(image.convert("RGB"))
    if out is None:
        return found
    np.copyto(out, found)
    return out


def decoder() -> str:
    """What `pixels` decodes JPEG with, and its version: `simplejpeg-1.9.0`."""
    name = "pillow" if simplejpeg is None else "simplejpeg"
    from importlib.metadata import version  # which workers do not need

    return f"{name}-{version(name)}"
