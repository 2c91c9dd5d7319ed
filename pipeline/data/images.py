"""Decode any image file to upright 8-bit RGB, resize it and encode it without metadata.

Resizing follows the paper's E.2.2 (bilinear, both sides to one size). A file that cannot be decoded safely is refused
with a reason (`BadImage`), never guessed at. A fast decoder takes JPEGs and Pillow takes all other files; the pixels
are the same. (docs/decisions/0009-fast-sharding.md, docs/decisions/0015-images.md)
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from functools import wraps
from typing import NamedTuple, ParamSpec, TypeVar

import numpy as np
from PIL import Image, ImageFile, TiffImagePlugin

from pipeline.data.decoders import budget, colour, formats, jpeg, png, tiff
from pipeline.data.decoders.formats import BadImage as BadImage
from pipeline.data.decoders.jpeg import COLOUR_SPACES
from pipeline.data.decoders.jpeg import simplejpeg as simplejpeg
from pipeline.data.resizing import resize as resize
from pipeline.data.resizing import resized_by

P = ParamSpec("P")
T = TypeVar("T")

# Add one when `decode` or `resize` gives other pixels for most files: the fingerprint then says that it is another
# dataset. For a kind of file that few datasets hold, add it to `pipeline.data.decoders.changed`.
REVISION = 2

FORMATS = {"jpeg": "jpg", "webp": "webp", "png": "png"}  # in which shards store images, with their extensions
STORED = ("JPEG", "WEBP", "PNG")  # Pillow's names for them
QUALITY = 95


class Decoded(NamedTuple):
    """The pixels of an image file, the size of the image in the file, and what is to be said of it."""

    pixels: np.ndarray
    """uint8 [height, width, 3 or 4], RGB, upright; smaller than the image in the file if it was decoded scaled."""
    width: int
    """Of the upright image in the file."""
    height: int
    remarks: tuple[str, ...] = ()
    """Harmless oddities, in words that many files share."""
    peak: int | None = None
    """The greatest stored value of a 16-bit grey image; None for all others."""


def decode(
    data: bytes,
    *,
    min_side: int = 0,
    channels: int = 3,
    size: int | None = None,
    memory: int | None = None,
    bits: int | None = None,
    frame: int | None = None,
) -> Decoded:
    """Decode an image file as upright RGB without metadata; raises `BadImage` with the reason if it cannot be used.

    Alpha is blended over black. 16-bit greyscale maps its full range to 8 bits, never an image's own minimum and
    maximum, so intensities stay comparable between images; `bits` says of how many bits the range is. With `min_side`,
    an intact JPEG that is at least twice as large is decoded at a fraction of its size (n/8, in its DCT), with both
    sides at least `min_side` pixels. With `channels=4` each pixel has a fourth byte without meaning: resizing then
    takes three quarters of the time. With `memory`, an image that needs more than so many bytes, to decode it and to
    resize it to `size`, is refused. `frame` is the number of the wanted image in a file that holds several.
    """
    if not data:
        raise BadImage("is empty")
    if data[128:132] == b"DICM":
        raise BadImage(formats.DICOM_ADVICE)
    said: list[str] = []
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of odd EXIF and large images; both are handled here
            with formats.open_image(data) as image:
                if frame is not None:
                    image.seek(frame)
                elif (pages := getattr(image, "n_frames", 1)) > 1 and image.format != "MPO":
                    raise BadImage(f"holds {pages} images; split it into single ones, or say which: --frames")
                _check(image, data)
                _check_memory(image, data, 1, channels, size, memory)
                if image.format == "PNG":
                    png.check_size(data)
                # To tell how a PNG is turned, Pillow loads it.
                turn = 1 if isinstance(image, TiffImagePlugin.TiffImageFile) else colour.orientation(image)
                _check_memory(image, data, turn, channels, size, memory)
                return _pixels(image, data, turn, min_side, channels, bits, said)
    except BadImage:
        raise
    except Image.DecompressionBombError:
        raise BadImage(formats.TOO_LARGE) from None
    except MemoryError:
        raise BadImage(
            "takes more memory to decode than a worker may take; use fewer workers or cut it into tiles"
        ) from None
    except Exception as error:  # decoders raise anything on broken data, and nothing may stop a long job
        text = "; ".join([str(error) or type(error).__name__, *said])
        raise BadImage(f"cannot be decoded: {text}") from None


def _check(image: ImageFile.ImageFile, data: bytes) -> None:
    """Refuse what cannot be decoded for certain, as far as headers and checksums show."""
    if image.width * image.height > formats.MAX_PIXELS:
        raise BadImage(formats.TOO_LARGE)
    if image.mode in ("I", "F"):
        raise BadImage(tiff.SIGNED)
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        tiff.check(image, data)
    elif image.format == "PNG":
        png.check(data)
        if image.mode == "RGB" and png.bits(data) == 16 and "transparency" in image.info:
            raise BadImage("has a transparent colour of 16 bits, of which 8 are decoded; convert it to 8 bits")


def _check_memory(
    image: ImageFile.ImageFile, data: bytes, turn: int, channels: int, size: int | None, memory: int | None
) -> None:
    if memory is None:
        return
    fast = tiff.has_wide_planes(image) or _is_plain_jpeg(image)
    needed = budget.bytes_needed(image, len(data), channels=channels, fast=fast, turned=turn > 1, size=size)
    if needed > memory:
        raise BadImage(
            f"needs {budget.gigabytes(needed)} of memory for its {image.width:,} × {image.height:,} pixels, more than "
            f"the {budget.gigabytes(memory)} that a worker may take; use fewer workers or cut it into tiles"
        )


def _is_plain_jpeg(image: Image.Image) -> bool:
    return image.format in ("JPEG", "MPO") and image.mode in ("RGB", "L")


def _pixels(
    image: ImageFile.ImageFile,
    data: bytes,
    turn: int,
    min_side: int,
    channels: int,
    bits: int | None,
    said: list[str],
) -> Decoded:
    """The pixels of a file that was opened and checked; `said` gets what native libraries print."""
    width, height = image.size if turn < 5 else image.size[::-1]
    remarks, peak = [colour.profile_remark(image)], None
    if image.format in ("JPEG", "MPO"):
        jpeg.check_size(data, *image.size)
        plain = _is_plain_jpeg(image)
        colours = COLOUR_SPACES[channels] if plain else "CMYK"  # which is checked here, and decoded by Pillow
        found = jpeg.decode(data, colours, min_side=min_side if plain and turn == 1 else 0)
        if found is not None:
            remarks.append(found.remark)
            if plain:
                return Decoded(colour.upright(found.pixels, turn), width, height, _said(remarks))
            del found  # it can be large
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        for block in tiff.jpegs(image, data):
            jpeg.check(block)
        if tiff.has_wide_planes(image):
            pixels = colour.upright(tiff.decode_wide_planes(image, data, channels), colour.orientation(image))
            return Decoded(pixels, width, height, _said(remarks))
        with tiff.native_messages(said):
            image.load()  # it turns the image upright
        if said and any(tiff.tells_damage(line) for line in said):
            raise BadImage(f"is damaged: {'; '.join(said)}")
    else:
        image.load()
    if image.mode.startswith("I;16"):
        pixels, peak = colour.rgb_of_16_bit(image, channels, bits)
    else:
        pixels = colour.rgb(image, channels)
    if image.format == "PNG" and image.tell() == 0:
        png.check_rows(data, image)
    return Decoded(colour.upright(pixels, turn), width, height, _said(remarks), peak)


def _said(remarks: list[str | None]) -> tuple[str, ...]:
    return tuple(remark for remark in remarks if remark)


def or_reason(work: Callable[P, T]) -> Callable[P, T | BadImage]:
    """A function that opens a raw file, with a `BadImage` as its answer where the file cannot be used."""

    @wraps(work)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> T | BadImage:
        try:
            return work(*args, **kwargs)
        except BadImage as error:
            return error
        except OSError as error:
            return BadImage(f"cannot be read: {error.strerror}")
        except MemoryError:
            return BadImage("takes more memory than a worker may take; use fewer workers or cut it into tiles")

    return guarded


def check_bits(bits: int | None) -> None:
    """Raise `ValueError` if 16-bit images cannot hold values of so many bits."""
    if bits is not None and not 9 <= bits <= 16:
        raise ValueError(f"--bits is {bits}; give a number from 9 to 16")


def is_blank(pixels: np.ndarray) -> bool:
    """Whether uint8 [h, w, 3 or 4] has one colour."""
    first = pixels[0, 0, :3]
    if pixels[len(pixels) // 2, len(pixels[0]) // 2, :3].tolist() != first.tolist():  # most images
        return False
    return bool((pixels[len(pixels) // 2, :, :3] == first).all()) and bool((pixels[..., :3] == first).all())


def encode(pixels: np.ndarray, *, format: str, quality: int | None) -> bytes:
    """Encode uint8 [h, w, 3 or 4] without metadata as JPEG (4:2:0), WebP (lossless if `quality` is None) or PNG.

    Without simplejpeg Pillow writes JPEG: the same bytes from quality 96 on, below it pixels that differ by a few grey
    levels, since it computes the DCT more exactly (`makers` says which of them wrote).
    """
    if format == "jpeg" and simplejpeg is not None:
        data: bytes = simplejpeg.encode_jpeg(
            np.ascontiguousarray(pixels), QUALITY if quality is None else quality, COLOUR_SPACES[pixels.shape[2]], "420"
        )
        return data
    pixels = pixels[..., :3]
    out = io.BytesIO()
    if format == "jpeg":
        Image.fromarray(pixels).save(out, "JPEG", quality=QUALITY if quality is None else quality, subsampling=2)
    elif format == "webp":
        Image.fromarray(pixels).save(out, "WEBP", lossless=quality is None, quality=80 if quality is None else quality)
    else:
        Image.fromarray(pixels).save(out, "PNG", compress_level=6)
    return out.getvalue()


def decode_stored(data: bytes, out: np.ndarray | None = None) -> np.ndarray:
    """Decode an image that `encode` made, to uint8 [height, width, 3]; the pixels are written to `out` if given."""
    if simplejpeg is not None and data[:2] == b"\xff\xd8":
        pixels: np.ndarray = simplejpeg.decode_jpeg(data, "RGB", buffer=out)
        return pixels
    with formats.open_image(data, STORED) as image:
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


def makers(format: str) -> dict[str, str]:
    """The libraries, with versions, that made the pixels of images stored in a format here, by what they did."""
    from importlib.metadata import version

    encoder = "simplejpeg" if format == "jpeg" and simplejpeg is not None else "pillow"
    used = {"resized": resized_by(), "encoded": encoder}
    return {"decoded": stored_decoder(), **{what: f"{name}-{version(name)}" for what, name in used.items()}}
