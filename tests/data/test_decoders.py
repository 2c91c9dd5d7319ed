"""What is opened, what is refused and why, and the pixels of kinds that decoders read wrong or pass over."""

from __future__ import annotations

import io
import itertools
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from messy import encoded, tiff
from PIL import Image, ImageCms, ImageFile, TiffImagePlugin, WebPImagePlugin
from repository import ROOT

from pipeline.data import images
from pipeline.data.decoders import budget, changed, formats, jpeg


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


SMOOTH = Image.fromarray(noise(12, 12)).resize((240, 180), Image.Resampling.BICUBIC)
JPEG = encoded(SMOOTH, "JPEG", quality=90)
PNG = encoded(SMOOTH, "PNG")


def reason(data: bytes, **options: int) -> str:
    with pytest.raises(images.BadImage) as caught:
        images.decode(data, **options)
    assert str(caught.value).isprintable()
    return str(caught.value)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(array: np.ndarray, *, transparent: bytes = b"", height: int = 0) -> bytes:
    """A PNG of uint8 or uint16 [h, w] or [h, w, 3], whose header may lie about its height."""
    depth, colour = array.itemsize * 8, 0 if array.ndim == 2 else 2
    rows = b"".join(b"\0" + row.astype(array.dtype.newbyteorder(">")).tobytes() for row in array)
    head = struct.pack(">IIBBBBB", array.shape[1], height or array.shape[0], depth, colour, 0, 0, 0)
    clear = chunk(b"tRNS", transparent) if transparent else b""
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + clear + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    )


# --- What is opened --------------------------------------------------------------------------------------------------


def test_only_one_module_opens_raw_files() -> None:
    """Benchmarks imitate other projects' loaders, on images that they made; a report's page embeds what it drew."""
    found = [
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "pipeline").rglob("*.py")
        if "Image.open(" in path.read_text() and "benchmarks" not in path.parts
    ]
    assert sorted(found) == ["pipeline/data/decoders/formats.py", "pipeline/results/html.py"]


def test_postscript_is_never_executed_whatever_it_is_called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "gs"
    program.write_text(f"#!/bin/sh\ntouch {tmp_path}/executed\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    evil = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n{1 pop} loop\n"
    assert reason(evil).startswith("is PostScript (EPS), which is not read here; convert it to PNG or TIFF")
    with pytest.raises(images.BadImage, match="PostScript"):
        formats.open_image(evil)
    (tmp_path / "evil.jpg").write_bytes(evil)
    with pytest.raises(images.BadImage, match="PostScript"):
        formats.open_image(tmp_path / "evil.jpg")
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(40), "is JPEG 2000, which is not read here"),
        (b"\0\0\0\x1cftypavif" + bytes(40), "is AVIF or HEIC, which is not read here"),
        (b"8BPS" + bytes(40), "is Photoshop"),
        (bytes(344) + b"n+1\0", "is NIfTI"),
        (b"  <svg xmlns=", "is SVG, XML or HTML"),
        (b"PK\x03\x04" + bytes(40), "is ZIP"),
        (bytes(128) + b"DICM" + bytes(40), "is DICOM: export it"),
        (b"\x08\0\x05\0CS\x0a\0ISO_IR 100" + bytes(40), "is DICOM: export it"),
        (b"\x02\0\x10\0UI\x14\0" + bytes(40), "is DICOM: export it"),
        (b"\x08\0\0\0\x04\0\0\0" + bytes(40), "is DICOM: export it"),
        (JPEG.replace(b"\xff\xc0", b"\xff\xc3", 1), "is a lossless JPEG, which is not read here"),
        (JPEG.replace(b"\xff\xc0", b"\xff\xf7", 1), "is a lossless (JPEG-LS) JPEG, which is not read here"),
        (
            JPEG.replace(b"\xff\xc0\0\x11\x08", b"\xff\xc0\0\x11\x0c", 1),
            "is a JPEG file that cannot be read: cannot handle",
        ),
        (tiff(np.ones((4, 4, 5), np.uint8)), "is a TIFF file that cannot be read: unknown pixel mode; its kind"),
        (tiff(np.ones((4, 4), np.float16)), "is a TIFF file that cannot be read: unknown pixel mode; its kind"),
        (JPEG[:100], "cannot be decoded: Truncated File Read"),
        (b"hello", "is no image format known here (JPEG, PNG, TIFF, WebP, BMP, GIF, PPM)"),
    ],
)
def test_what_a_file_is_that_is_not_read(data: bytes, said: str) -> None:
    assert reason(data).startswith(said)


# --- Damage ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options", [{}, {"progressive": True}, {"orientation": 6}, {"mode": "CMYK"}, {"mode": "L"}], ids=str
)
@pytest.mark.parametrize("kind", ["zeros", "cut, with an end marker", "cut"])
def test_a_jpeg_of_which_a_part_is_wrong_is_refused(kind: str, options: dict[str, object]) -> None:
    mode, turn = str(options.pop("mode", "RGB")), options.pop("orientation", 1)
    exif = Image.Exif()
    exif[274] = turn
    data = encoded(SMOOTH.convert(mode), "JPEG", quality=90, exif=exif, **options)
    half = len(data) // 2
    damaged = {
        "zeros": data[:half] + bytes(2000) + data[half + 2000 :],
        "cut, with an end marker": data[:half] + b"\xff\xd9",
        "cut": data[:half],
    }[kind]
    images.decode(data)
    assert reason(damaged).startswith("is damaged: ")


@pytest.mark.parametrize(
    ("data", "remark"),
    [
        (JPEG[:-2] + bytes(60) + JPEG[-2:], "JPEG with surplus bytes between its parts, otherwise whole"),
        (JPEG[:20] + b"abc" + JPEG[20:], "JPEG with surplus bytes between its parts, otherwise whole"),
    ],
    ids=["padding before the end", "bytes between segments"],
)
def test_harmless_oddities_of_a_jpeg_are_remarked_and_change_no_pixel(data: bytes, remark: str) -> None:
    found = images.decode(data)
    assert found.remarks == (remark,)
    assert (found.pixels == images.decode(JPEG).pixels).all()


def test_a_harmless_oddity_does_not_hide_damage() -> None:
    half = len(JPEG) // 2
    assert reason(JPEG[:20] + b"abc" + JPEG[20:half] + bytes(2000) + JPEG[half + 2000 :]).startswith("is damaged")
    assert reason(JPEG[:half] + bytes(len(JPEG) - half - 2) + JPEG[-2:]).startswith("is damaged")


def test_a_jpeg_without_an_end_marker_is_refused() -> None:
    """Nothing shows that it is whole: bytes that were lost can decode as valid code, and scans can be missing."""
    progressive = encoded(SMOOTH, "JPEG", progressive=True)
    for data in (JPEG[:-2], JPEG[:-4] + bytes(4), JPEG[:-2] + b"ab", progressive[: progressive.rfind(b"\xff\xda")]):
        assert reason(data) == "is damaged: premature end of JPEG file"


@pytest.mark.parametrize("interlaced", [False, True])
def test_a_png_whose_checksums_do_not_fit_is_refused(interlaced: bool) -> None:
    half = len(PNG) // 2
    for damaged in (PNG[:half] + bytes(len(PNG) - half), PNG[:half] + b"\1" + PNG[half + 1 :], PNG[:half], PNG[:-12]):
        assert "damaged" in reason(damaged)


def test_a_png_whose_parts_are_out_of_order_is_refused_though_its_checksums_fit() -> None:
    """Pillow decodes most of these without a word, in other colours or to half of the rows."""
    image = SMOOTH.convert("RGBA").quantize(16)
    image.info["transparency"] = 3
    data = encoded(image, "PNG")
    parts = {
        data[at - 4 : at]: data[at - 8 : at + int.from_bytes(data[at - 8 : at - 4], "big") + 4] for at in _starts(data)
    }
    head, palette, clear, rows, end = parts.values()
    first, second = (chunk(b"IDAT", half) for half in (rows[8:500], rows[500:-4]))
    start = data[:8] + head
    assert images.decode(start + palette + clear + first + second + end).pixels.any()
    for wrong, part in [
        (start + rows + clear + palette + end, "its palette (PLTE) is missing"),
        (start + rows + end, "its palette (PLTE) is missing"),
        (start + palette + rows + clear + end, "its part tRNS"),
        (start + palette + palette + rows + end, "its part PLTE"),
        (start + palette + first + clear + second + end, "its part tRNS"),
        (start + palette + first + chunk(b"tEXt", b"a\0b") + second + end, "its part IDAT"),
        (start + head + palette + rows + end, "its part IHDR"),
        (data[:8] + chunk(b"tEXt", b"a\0b") + head + palette + rows + end, "its part IHDR"),
    ]:
        assert part in reason(wrong)


def _starts(data: bytes) -> list[int]:
    """Where the contents of a PNG's parts begin."""
    starts = [16]
    while data[starts[-1] - 4 : starts[-1]] != b"IEND":
        starts.append(starts[-1] + int.from_bytes(data[starts[-1] - 8 : starts[-1] - 4], "big") + 12)
    return starts


def test_a_png_whose_data_ends_early_is_refused_though_its_checksums_fit() -> None:
    whole = noise(40, 30)[..., 0] | 1
    assert (images.decode(png(whole)).pixels[..., 0] == whole).all()
    assert reason(png(whole, height=41)) == "is damaged: its data holds 1,240 of 1,271 bytes"
    black = whole.copy()
    black[-2:] = 0  # what missing rows look like
    assert (images.decode(png(black)).pixels[..., 0] == black).all()


def test_a_tiff_whose_strips_are_not_in_the_file_is_refused() -> None:
    data = encoded(SMOOTH, "TIFF")
    assert "truncated" in reason(data[:-1])
    packed = encoded(SMOOTH, "TIFF", compression="tiff_deflate")
    half = len(packed) // 2
    damaged = packed[:half] + bytes(2000) + packed[half + 2000 :]
    images.decode(packed)
    assert reason(damaged).startswith("is damaged: ")
    within = encoded(SMOOTH, "TIFF", compression="jpeg", quality=95)
    half = len(within) // 2
    images.decode(within)
    assert reason(within[:half] + bytes(2000) + within[half + 2000 :]).startswith("is damaged: ")


def test_what_native_libraries_print_is_in_the_reason_and_not_on_the_screen() -> None:
    code = (
        "import io, sys\n"
        "from pipeline.data import images\n"
        "try:\n"
        "    images.decode(sys.stdin.buffer.read())\n"
        "except images.BadImage as error:\n"
        "    print(error)\n"
    )
    packed = encoded(SMOOTH, "TIFF", compression="tiff_lzw")
    damaged = packed[:60000] + bytes(9000) + packed[69000:]
    done = subprocess.run([sys.executable, "-c", code], input=damaged, capture_output=True, cwd=ROOT)
    assert done.stderr == b""
    assert b"cannot be decoded: decoder error -2; tempfile.tif: Using code not yet in table" in done.stdout


# --- Budgets ---------------------------------------------------------------------------------------------------------


def claims(width: int, height: int) -> bytes:
    """A JPEG whose header claims a size that its data does not have."""
    at = JPEG.index(b"\xff\xc0") + 5
    return JPEG[:at] + struct.pack(">HH", height, width) + JPEG[at + 4 :]


def test_an_image_over_its_share_of_the_memory_is_refused_with_numbers() -> None:
    said = reason(claims(17_000, 17_000), memory=1_000_000_000, size=384, channels=4)
    assert said == (
        "needs 1.3 GB of memory for its 17,000 × 17,000 pixels, more than the 1.0 GB that a worker may take; use fewer "
        "workers or cut it into tiles"
    )
    assert reason(claims(17_000, 17_000), memory=10**10) == (
        f"is damaged: its {len(JPEG):,} bytes cannot hold 17,000 × 17,000 pixels"
    )
    tall = png(np.zeros((1, 1), np.uint8), height=250_000_000)
    assert reason(tall, memory=8 * 10**9, size=32).startswith("needs ")
    assert reason(tall).endswith("bytes cannot hold 1 × 250,000,000 pixels")


@pytest.mark.parametrize("format", ["PNG", "WEBP", "GIF", "BMP", "TIFF"])
def test_no_pixel_of_an_image_over_its_share_is_decoded(format: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow loads some formats to read their EXIF, which says how an image is turned."""

    def load(*_: object) -> None:
        raise AssertionError

    data = encoded(SMOOTH, format)
    for kind in (ImageFile.ImageFile, WebPImagePlugin.WebPImageFile, TiffImagePlugin.TiffImageFile):
        monkeypatch.setattr(kind, "load", load)
    assert reason(data, memory=1).startswith("needs ")


def test_an_even_image_is_not_too_short_for_its_pixels() -> None:
    even = Image.new("L", (4000, 3000), 7)
    for format, options in (("PNG", {"compress_level": 9}), ("JPEG", {}), ("JPEG", {"progressive": True})):
        found = images.decode(encoded(even, format, **options))
        assert (found.width, found.height) == (4000, 3000) and images.is_blank(found.pixels)


MEASURE = """
import re, sys
from pathlib import Path
from pipeline.data import images

def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) << 10

data = sys.stdin.buffer.read()
images.resize(images.decode(Path(sys.argv[1]).read_bytes(), channels=4).pixels, 64)
before = peak()
images.resize(images.decode(data, channels=4).pixels, 64)
print(peak() - before)
"""


@pytest.mark.parametrize(
    "kind", ["jpeg", "progressive", "cmyk", "png", "alpha", "16-bit", "tiff", "webp", "gif", "turned"]
)
def test_the_estimate_is_above_what_an_image_takes_and_not_far_above(kind: str, tmp_path: Path) -> None:
    side = 3000
    big = Image.fromarray(noise(20, 20)).resize((side, side))
    exif = Image.Exif()
    exif[274] = 6
    wide = Image.fromarray(np.asarray(big.convert("L")).astype(np.uint16) * 200)

    def encode(image: Image.Image) -> bytes:
        return {
            "jpeg": lambda: encoded(image, "JPEG"),
            "progressive": lambda: encoded(image, "JPEG", progressive=True, subsampling=0),
            "cmyk": lambda: encoded(image.convert("CMYK"), "JPEG"),
            "png": lambda: encoded(image, "PNG", compress_level=1),
            "alpha": lambda: encoded(image.convert("RGBA"), "PNG", compress_level=1),
            "16-bit": lambda: encoded(wide.resize(image.size), "PNG", compress_level=1),
            "tiff": lambda: encoded(image, "TIFF", compression="tiff_lzw"),
            "webp": lambda: encoded(image, "WEBP", lossless=True, method=0),
            "gif": lambda: encoded(image.quantize(16), "GIF"),
            "turned": lambda: encoded(image, "JPEG", exif=exif),
        }[kind]()

    data = encode(big)
    (tmp_path / "small").write_bytes(encode(big.resize((64, 64))))
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, tmp_path / "small"], input=data, capture_output=True, cwd=ROOT
    )
    taken = int(done.stdout)
    with formats.open_image(data) as image:
        fast, turned = kind in ("jpeg", "progressive", "turned"), kind == "turned"
        estimate = budget.bytes_needed(image, len(data), channels=4, fast=fast, turned=turned, size=64)
    assert taken < estimate
    assert estimate - budget.FIXED < 4 * taken


# --- Right pixels ----------------------------------------------------------------------------------------------------


def planes(array: np.ndarray, *, big_endian: bool = False, tile: int = 0, rows: int = 0) -> bytes:
    """An uncompressed TIFF of [h, w, c] with its planes apart, in strips of `rows` rows or in tiles."""
    order = ">" if big_endian else "<"
    height, width, count = array.shape
    stored = array.astype(array.dtype.newbyteorder(order))
    rows, columns = (tile, tile) if tile else (rows or height, width)
    blocks = []
    for plane, top, left in itertools.product(range(count), range(0, height, rows), range(0, width, columns)):
        block = stored[top : top + rows, left : left + columns, plane]
        if tile:
            block = np.pad(block, ((0, tile - block.shape[0]), (0, tile - block.shape[1])))
        blocks.append(block.tobytes())
    where = (324, 325) if tile else (273, 279)
    tags = [(256, "I", [width]), (257, "I", [height]), (258, "H", [array.itemsize * 8] * count), (259, "H", [1])]
    tags += [(262, "H", [2 if count >= 3 else 1]), (where[0], "I", [0] * len(blocks)), (277, "H", [count])]
    tags += [(278, "I", [rows])] * (not tile) + [(284, "H", [2])]
    tags += [(where[1], "I", [len(block) for block in blocks])]
    tags += [(322, "I", [tile]), (323, "I", [tile])] * bool(tile) + [(338, "H", [2])] * (count in (2, 4))
    tags.sort()
    at = 8 + 2 + 12 * len(tags) + 4
    sizes = {tag: len(values) * struct.calcsize(code) for tag, code, values in tags}
    start = at + sum(size for size in sizes.values() if size > 4)
    offsets = [start + sum(map(len, blocks[:number])) for number in range(len(blocks))]
    body, extra = b"", b""
    for tag, code, values in tags:
        raw = struct.pack(f"{order}{len(values)}{code}", *(offsets if tag == where[0] else values))
        if len(raw) > 4:
            raw, extra = struct.pack(f"{order}I", at + len(extra)), extra + raw
        body += struct.pack(f"{order}HHI", tag, {"H": 3, "I": 4}[code], len(values)) + raw.ljust(4, b"\0")
    head = (b"MM" if big_endian else b"II") + struct.pack(f"{order}HIH", 42, 8, len(tags))
    return head + body + struct.pack(f"{order}I", 0) + extra + b"".join(blocks)


@pytest.mark.parametrize("big_endian", [False, True])
@pytest.mark.parametrize("layout", [{}, {"rows": 7}, {"tile": 16}], ids=str)
@pytest.mark.parametrize("bits", [8, 16])
def test_colour_in_planes_apart_is_right(bits: int, layout: dict[str, int], big_endian: bool) -> None:
    wide = np.random.default_rng(3).integers(0, 2**bits, (20, 24, 3)).astype(f"u{bits // 8}")
    data = planes(wide, big_endian=big_endian, **layout)
    for channels in (3, 4):
        assert (images.decode(data, channels=channels).pixels[..., :3] == (wide >> (bits - 8))).all()


@pytest.mark.parametrize(("bits", "count"), [(8, 2), (16, 4)])
def test_alpha_in_a_plane_of_its_own_is_refused(bits: int, count: int) -> None:
    assert "stores alpha in a plane of its own" in reason(planes(np.ones((8, 8, count), f"u{bits // 8}")))


def test_the_microscopes_file_of_the_cases_is_right(shared: Path) -> None:
    path = shared.parent / "cases" / "planar16.tif"
    if not path.exists():
        pytest.skip("the case is not here")
    data = path.read_bytes()
    with Image.open(io.BytesIO(data)) as image:
        tags = image.tag_v2  # type: ignore[attr-defined]
        planes_apart = [np.frombuffer(data, "<u2", 64 * 64, offset).reshape(64, 64) for offset in tags[273]]
    assert (images.decode(data).pixels == np.dstack(planes_apart) >> 8).all()


def test_signed_8_bit_pixels_are_refused() -> None:
    assert reason(tiff(np.full((4, 4), -3, np.int8))).startswith("has signed or 32-bit pixels")


def test_a_transparent_colour_is_black_in_16_bits_as_in_8() -> None:
    wide = np.full((4, 4), 5000, np.uint16)
    wide[0] = 60000
    clear = images.decode(png(wide, transparent=struct.pack(">H", 60000))).pixels
    assert clear[:2, 0, 0].tolist() == [0, 19]
    small = (wide >> 8).astype(np.uint8)
    assert images.decode(png(small, transparent=struct.pack(">H", 60000 >> 8))).pixels[:2, 0, 0].tolist() == [0, 19]


def test_a_transparent_colour_of_16_bits_is_refused_where_8_are_decoded() -> None:
    wide = np.full((4, 4, 3), 5000, np.uint16)
    assert reason(png(wide, transparent=struct.pack(">HHH", 5000, 5000, 5000))).startswith("has a transparent colour")
    assert images.decode(png(wide)).pixels.max() == 19
    small = (wide >> 8).astype(np.uint8)
    assert not images.decode(png(small, transparent=struct.pack(">HHH", 19, 19, 19))).pixels.any()


def test_bits_scale_16_bit_grey_and_never_clip() -> None:
    wide = np.linspace(0, 4095, 64).astype(np.uint16).reshape(8, 8)
    data = encoded(Image.fromarray(wide), "PNG")
    assert images.decode(data).peak == 4095
    assert images.decode(data).pixels.max() == 16
    assert (images.decode(data, bits=12).pixels[..., 0] == np.round(wide * (255 / 4095))).all()
    assert reason(data, bits=11) == "has the value 4,095, above 2,047, the greatest of --bits 11"


def test_a_colour_profile_that_is_not_srgb_is_remarked_and_colours_stay() -> None:
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for format in ("JPEG", "PNG", "TIFF", "WEBP"):
        plain = images.decode(encoded(SMOOTH, format))
        assert images.decode(encoded(SMOOTH, format, icc_profile=srgb)).remarks == ()
        other = images.decode(encoded(SMOOTH, format, icc_profile=lab))
        assert other.remarks == ("colour profile Lab identity built-in, not sRGB: colours are kept as stored",)
        assert (other.pixels == plain.pixels).all()


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (png(np.ones((4, 4), np.uint16), transparent=b"\0\1"), "16-bit PNG with a transparent colour"),
        (png(np.ones((4, 4), np.uint16)), None),
        (png(np.ones((4, 4), np.uint8), transparent=b"\0\1"), None),
        (planes(np.ones((4, 4, 3), np.uint16)), "16-bit TIFF in planes apart"),
        (planes(np.ones((4, 4, 3), np.uint8)), None),
        (tiff(np.ones((4, 4), np.int8)), "TIFF that is refused now"),
        (tiff(np.ones((4, 4), np.int16)), None),
        (tiff(np.ones((4, 4), np.uint16)), None),
        (JPEG, None),
        (PNG, None),
        (b"II*\0", None),
        (b"", None),
    ],
)
def test_kinds_that_are_decoded_otherwise_than_before_are_known_from_their_headers(
    data: bytes, kind: str | None
) -> None:
    assert changed.kind_of(io.BytesIO(data)) == kind


def test_blank_means_one_colour() -> None:
    black, dot = np.zeros((30, 40, 4), np.uint8), np.zeros((30, 40, 4), np.uint8)
    dot[3, 4, 1] = 1
    filler = np.zeros((30, 40, 4), np.uint8)
    filler[..., 3] = np.arange(40)
    assert images.is_blank(black) and images.is_blank(filler) and not images.is_blank(dot)
    ink = encoded(Image.new("1", (8, 8), 1), "PNG", transparency=1)
    assert images.is_blank(images.decode(ink).pixels)


def test_the_fast_decoder_is_strict() -> None:
    found = jpeg.decode(JPEG, "RGB")
    assert found is not None and found.pixels.shape == (180, 240, 3)
    assert jpeg.decode(b"\xff\xd8\xff\xe0", "RGB") is None
