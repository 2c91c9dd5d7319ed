"""Any image file becomes upright 8-bit RGB without metadata, or is refused with a reason."""

from __future__ import annotations

import io
import math
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from messy import BAD, GOOD, SECRET, encoded, image_of, tiff
from PIL import Image, ImageCms, PngImagePlugin

from pipeline.data import images, resizing
from pipeline.data.decoders import jpeg

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def pixels(data: bytes) -> np.ndarray:
    """The decoded pixels of a file, as signed numbers [h, w, 3]."""
    image = images.decode(data)
    assert image.pixels.dtype == np.uint8 and image.pixels.shape == (image.height, image.width, 3)
    return image.pixels.astype(int)


def corners(*colours: tuple[int, ...], mode: str = "RGB", side: int = 16) -> Image.Image:
    """Four squares: top left, top right, bottom left, bottom right."""
    image = Image.new(mode, (2 * side, 2 * side))
    for number, colour in enumerate(colours):
        left, top = number % 2 * side, number // 2 * side
        image.paste(colour, (left, top, left + side, top + side))
    return image


def middles(array: np.ndarray) -> list[list[int]]:
    """The colours in the middle of the four squares."""
    quarter = array.shape[0] // 4
    return [array[y, x].tolist() for y in (quarter, -quarter) for x in (quarter, -quarter)]


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("format", ["PNG", "TIFF", "BMP", "PPM"])
def test_a_lossless_rgb_image_keeps_every_pixel(format: str) -> None:
    array = noise(20, 30)
    assert (pixels(encoded(Image.fromarray(array), format)) == array).all()


def test_cmyk_jpegs_have_the_colours_their_inks_mix_to() -> None:
    inks = corners((255, 0, 0, 0), (0, 255, 0, 0), (0, 0, 0, 255), (0, 0, 0, 0), mode="CMYK")
    found = np.array(middles(pixels(encoded(inks, "JPEG", quality=95))))
    cyan, magenta, black = (0, 255, 255), (255, 0, 255), (0, 0, 0)
    assert abs(found - [cyan, magenta, black, WHITE]).max() <= 4


def test_progressive_jpegs_have_the_pixels_of_baseline_ones() -> None:
    image = Image.fromarray(noise(40, 56))
    baseline, progressive = encoded(image, "JPEG"), encoded(image, "JPEG", progressive=True)
    assert b"\xff\xc2" in progressive and b"\xff\xc2" not in baseline  # the marker of a progressive frame
    assert (pixels(progressive) == pixels(baseline)).all()


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_8_bit_grey_is_the_same_grey_in_three_channels(format: str) -> None:
    ramp = np.arange(256, dtype=np.uint8).reshape(16, 16)
    assert (pixels(encoded(Image.fromarray(ramp), format)) == ramp[..., None]).all()


def test_grey_jpegs_are_grey() -> None:
    found = pixels(encoded(corners(0, 85, 170, 255, mode="L"), "JPEG", quality=95))  # type: ignore[arg-type]
    assert abs(np.array(middles(found)) - np.array([[0], [85], [170], [255]])).max() <= 2
    assert (found == found[..., :1]).all()


def test_black_and_white_stays_black_and_white() -> None:
    mask = np.random.default_rng(0).random((9, 13)) > 0.5
    for format in ("PNG", "TIFF"):
        assert (pixels(encoded(Image.fromarray(mask), format)) == 255 * mask[..., None]).all()


WIDE = np.random.default_rng(1).permutation(65536).astype(np.uint16).reshape(256, 256)
FULL_RANGE = np.round(WIDE * (255 / 65535)).astype(int)[..., None]


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(encoded(Image.fromarray(WIDE), "PNG"), id="png"),
        pytest.param(encoded(Image.fromarray(WIDE), "TIFF"), id="tiff"),
        pytest.param(encoded(Image.fromarray(WIDE), "TIFF", compression="tiff_deflate"), id="compressed tiff"),
        pytest.param(tiff(WIDE), id="little-endian tiff"),
        pytest.param(tiff(WIDE, big_endian=True), id="big-endian tiff"),
        pytest.param(tiff(65535 - WIDE, photometric=0), id="zero is white"),
    ],
)
def test_16_bit_grey_maps_its_full_range(data: bytes) -> None:
    assert (pixels(data) == FULL_RANGE).all()


def test_dark_16_bit_images_stay_dark() -> None:
    """An image's own range is never used, so images of one scanner stay comparable."""
    dark = np.linspace(0, 2570, 64).astype(np.uint16).reshape(8, 8)
    assert pixels(encoded(Image.fromarray(dark), "PNG")).max() == 10


def test_12_bit_grey_maps_its_full_range() -> None:
    wide = np.arange(4096, dtype=np.uint16).reshape(64, 64)
    assert (pixels(tiff(wide, bits=12)) == np.round(wide * (255 / 4095)).astype(int)[..., None]).all()


@pytest.mark.parametrize("big_endian", [False, True])
def test_16_bit_rgb_is_within_a_grey_level_of_its_full_range(big_endian: bool) -> None:
    wide = np.random.default_rng(2).integers(0, 65536, (32, 24, 3)).astype(np.uint16)
    assert abs(pixels(tiff(wide, big_endian=big_endian)) - wide * (255 / 65535)).max() <= 1


def test_8_bit_tiffs_whose_zero_is_white_are_not_negatives() -> None:
    ramp = np.arange(256, dtype=np.uint8).reshape(16, 16)
    assert (pixels(tiff(255 - ramp, photometric=0)) == ramp[..., None]).all()


def test_alpha_is_blended_over_black() -> None:
    clear = np.dstack([noise(16, 16), np.arange(256, dtype=np.uint8).reshape(16, 16)])
    over_black = clear[..., :3] * (clear[..., 3:] / 255)
    for format in ("PNG", "TIFF"):
        assert abs(pixels(encoded(Image.fromarray(clear), format)) - over_black).max() <= 1


def test_grey_with_alpha_is_blended_over_black() -> None:
    clear = np.dstack([noise(16, 16)[..., 0], np.arange(256, dtype=np.uint8).reshape(16, 16)])
    over_black = clear[..., :1] * (clear[..., 1:] / 255)
    assert abs(pixels(encoded(Image.fromarray(clear), "PNG")) - over_black).max() <= 1


def test_palettes_become_their_colours_and_a_transparent_entry_becomes_black() -> None:
    image = corners(0, 1, 2, 3, mode="P")  # type: ignore[arg-type]
    image.putpalette([*RED, *GREEN, *BLUE, *WHITE])
    assert middles(pixels(encoded(image, "PNG"))) == [[*RED], [*GREEN], [*BLUE], [*WHITE]]
    assert middles(pixels(encoded(image, "PNG", transparency=1))) == [[*RED], [0, 0, 0], [*BLUE], [*WHITE]]
    half = encoded(image, "PNG", transparency=bytes([255, 255, 255, 51]))
    assert middles(pixels(half)) == [[*RED], [*GREEN], [*BLUE], [51, 51, 51]]


# EXIF 2.3, 4.6.4 A: how a viewer turns the stored rows and columns upright
UPRIGHT: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, -1),  # a quarter turn clockwise
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: np.rot90(a, 1),
}


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_images_are_turned_upright_by_their_exif(orientation: int) -> None:
    array = noise(10, 16)
    exif = Image.Exif()
    exif[274] = orientation
    found = pixels(encoded(Image.fromarray(array), "PNG", exif=exif))
    assert (found == UPRIGHT[orientation](array)).all()


def test_a_jpeg_on_its_side_is_turned_upright() -> None:
    exif = Image.Exif()
    exif[274] = 6
    found = pixels(encoded(corners(RED, GREEN, BLUE, WHITE), "JPEG", quality=95, subsampling=0, exif=exif))
    assert abs(np.array(middles(found)) - [BLUE, RED, WHITE, GREEN]).max() <= 4


def test_16_bit_images_are_turned_upright_too() -> None:
    exif = Image.Exif()
    exif[274] = 6
    found = pixels(encoded(Image.fromarray(WIDE[:10]), "PNG", exif=exif))
    assert (found == np.rot90(FULL_RANGE[:10], -1)).all()


def test_stereo_jpegs_of_cameras_give_their_first_image() -> None:
    first, second = corners(RED, GREEN, BLUE, WHITE), corners(WHITE, WHITE, RED, RED)
    data = encoded(first, "MPO", save_all=True, append_images=[second], quality=95, subsampling=0)
    assert abs(np.array(middles(pixels(data))) - [RED, GREEN, BLUE, WHITE]).max() <= 4


@pytest.mark.parametrize("kind", GOOD)
def test_every_good_kind_of_the_messy_folder_decodes(kind: str) -> None:
    _, encode = GOOD[kind]
    image = image_of("naevus", np.random.default_rng(0))
    upright = (36, 48) if kind == "exif" else (48, 36)
    found = images.decode(encode(image))
    assert (found.width, found.height) == upright


@pytest.mark.parametrize("kind", BAD)
def test_every_bad_kind_of_the_messy_folder_is_refused_with_its_reason(kind: str) -> None:
    _, encode, reason = BAD[kind]
    with pytest.raises(images.BadImage) as caught:
        images.decode(encode(image_of("naevus", np.random.default_rng(0))))
    assert reason in str(caught.value)


SMALL = Image.fromarray(noise(12, 12))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (tiff(np.ones((4, 4), np.uint32)), "32-bit pixels, whose range nobody states; convert it to unsigned 8 or 16"),
        (tiff(np.ones((4, 4), np.int16)), "signed or 32-bit pixels"),
        (tiff(np.ones((4, 4), np.float32)), "32-bit pixels"),
        (encoded(SMALL, "GIF", save_all=True, append_images=[SMALL.rotate(90)]), "holds 2 images; split it"),
        (encoded(SMALL, "PNG", save_all=True, append_images=[SMALL.rotate(90)]), "holds 2 images; split it"),
        (b"\xff\xd8\xff", "is a JPEG file that cannot be read: its header is damaged or cut off"),
        (b"\x89PNG\r\n\x1a\n", "is a PNG file that cannot be read: its header is damaged or cut off"),
    ],
    ids=["32-bit", "signed", "float", "animated gif", "animated png", "three bytes of jpeg", "eight bytes of png"],
)
def test_files_other_than_single_8_or_16_bit_images_are_refused(data: bytes, reason: str) -> None:
    with pytest.raises(images.BadImage, match=reason):
        images.decode(data)


def claims(width: int, height: int) -> bytes:
    """A PNG whose header claims a size that its data does not have."""
    data = encoded(Image.new("L", (1, 1)), "PNG")
    header = b"IHDR" + struct.pack(">II", width, height) + data[24:29]
    return data[:12] + header + struct.pack(">I", zlib.crc32(header)) + data[33:]


@pytest.mark.parametrize(("width", "height"), [(20_000, 20_000), (60_000, 60_000), (100_000, 3_001)])
def test_an_image_of_too_many_pixels_is_refused_before_it_fills_the_memory(width: int, height: int) -> None:
    with pytest.raises(images.BadImage, match="has more than 300,000,000 pixels; cut it into tiles first"):
        images.decode(claims(width, height))


def test_a_large_image_under_the_limit_is_not_refused_as_too_large() -> None:
    with pytest.raises(images.BadImage, match="bytes cannot hold 200,000 × 1,000 pixels"):
        images.decode(claims(200_000, 1_000))


@pytest.mark.parametrize("kind", ["jpeg", "progressive", "cmyk", "png", "palette", "tiff", "16-bit tiff"])
def test_damage_of_any_kind_gives_an_image_or_a_reason_and_never_another_error(kind: str) -> None:
    rng = np.random.default_rng(3)
    whole = GOOD[kind][1](image_of("melanoma", rng))
    refused = 0
    for _ in range(30):
        damaged = bytearray(whole[: rng.integers(0, len(whole) + 1)] if rng.random() < 0.5 else whole)
        for _ in range(rng.integers(1, 20)):
            if damaged:
                damaged[rng.integers(0, len(damaged))] = rng.integers(0, 256)
        try:
            assert images.decode(bytes(damaged)).pixels.ndim == 3
        except images.BadImage as error:
            assert str(error)
            refused += 1
    assert refused


def by_pillow(data: bytes) -> np.ndarray:
    """The pixels that Pillow gives, with whatever damage it passes over."""
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB"))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"quality": 95},
        {"subsampling": 0},
        {"subsampling": 1, "quality": 30},
        {"progressive": True},
        {"restart_marker_blocks": 2},
        {"keep_rgb": True},
    ],
    ids=str,
)
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_the_fast_decoder_gives_pillows_pixels(mode: str, options: dict[str, int]) -> None:
    smooth = Image.fromarray(noise(9, 9)).resize((131, 77), Image.Resampling.BICUBIC).convert(mode)
    data = encoded(smooth, "JPEG", **options)
    fast = jpeg.decode(data, "RGB")
    assert fast is not None and fast.remark is None
    assert (fast.pixels == by_pillow(data)).all()


@pytest.mark.parametrize(
    ("size", "sides"),
    [((160, 160), (60, 60)), ((120, 121), (60, 61)), ((117, 130), (117, 130)), ((40, 300), (40, 300))],
)
def test_scaled_decoding_halves_at_least_and_leaves_enough_pixels(
    size: tuple[int, int], sides: tuple[int, int]
) -> None:
    data = encoded(Image.fromarray(noise(5, 5)).resize(size, Image.Resampling.BICUBIC), "JPEG", quality=95)
    found = images.decode(data, min_side=60)
    assert (found.width, found.height) == size
    assert found.pixels.shape == (sides[1], sides[0], 3)
    exact = images.decode(data).pixels
    assert psnr(images.resize(found.pixels, 60), images.resize(exact, 60)) > 35


def test_only_plain_jpegs_are_decoded_scaled() -> None:
    image = Image.fromarray(noise(90, 90))
    exif = Image.Exif()
    exif[274] = 6
    for data in (
        encoded(image, "PNG"),
        encoded(image.convert("CMYK"), "JPEG"),
        encoded(image, "JPEG", exif=exif),
    ):
        assert (images.decode(data, min_side=16).pixels == images.decode(data).pixels).all()


@pytest.mark.parametrize("size", [(600, 450), (150, 211), (64, 64), (31, 40), (300, 64)])
@pytest.mark.parametrize("side", [64, 96])
def test_resizing_is_torchvisions_bilinear_with_antialiasing(size: tuple[int, int], side: int) -> None:
    import torch
    from torchvision.transforms import v2

    array = noise(size[1], size[0])
    mine = images.resize(array, side)
    planes = torch.from_numpy(array).permute(2, 0, 1)
    theirs = v2.functional.resize(planes, [side, side], antialias=True).permute(1, 2, 0).numpy()
    assert mine.shape == (side, side, 3)
    assert (mine == theirs).all()
    if size == (600, 450):  # the comparison can fail: without antialiasing it is another image
        jagged = v2.functional.resize(planes, [side, side], antialias=False).permute(1, 2, 0).numpy()
        assert psnr(mine, jagged) < 20


@pytest.mark.parametrize("size", [(600, 450), (1024, 1024), (200, 300)])
def test_resizing_is_within_a_grey_level_of_pillows_and_above_60_db(size: tuple[int, int]) -> None:
    image = Image.fromarray(noise(12, 12)).resize(size, Image.Resampling.BICUBIC)
    mine = images.resize(np.asarray(image), 384)
    pillows = np.asarray(image.resize((384, 384), Image.Resampling.BILINEAR))
    assert abs(mine.astype(int) - pillows).max() <= 1
    assert psnr(mine, pillows) >= 60


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA"])
@pytest.mark.parametrize("format", ["JPEG", "PNG"])
@pytest.mark.parametrize("size", [(1300, 700), (64, 64), (40, 90)])
def test_a_fourth_byte_a_pixel_changes_nothing(size: tuple[int, int], format: str, mode: str) -> None:
    if (format, mode) == ("JPEG", "RGBA"):
        pytest.skip("JPEG has no alpha")
    data = encoded(Image.fromarray(noise(*size[::-1])).convert(mode), format)
    three, four = images.decode(data), images.decode(data, channels=4)
    assert three.pixels.shape == (*size[::-1], 3) and four.pixels.shape == (*size[::-1], 4)
    small = [images.resize(image.pixels, 64) for image in (three, four)]
    assert (small[0] == small[1][..., :3]).all()
    for stored in images.FORMATS:
        one, other = (images.encode(pixels, format=stored, quality=None) for pixels in small)
        assert one == other


def psnr(mine: np.ndarray, theirs: np.ndarray) -> float:
    """Peak signal-to-noise ratio in dB; infinite for the same pixels."""
    error = float(((mine.astype(float) - theirs.astype(float)) ** 2).mean())
    return 10 * math.log10(255**2 / error) if error else math.inf


def test_fine_stripes_become_grey_and_not_wider_stripes() -> None:
    stripes = np.zeros((96, 96, 3), np.uint8)
    stripes[:, ::3] = 255  # a third is white
    small = images.resize(stripes, 24).astype(int)
    assert abs(small[:, 2:-2] - 85).max() <= 25


def test_an_image_of_the_right_size_does_not_change() -> None:
    array = noise(64, 64)
    assert (images.resize(array, 64) == array).all()


def with_metadata(format: str) -> bytes:
    """An image file with a name in every field that its format has for text."""
    image = Image.fromarray(noise(20, 30))
    exif = Image.Exif()
    exif[270] = exif[315] = SECRET
    exif.get_ifd(34853)[29] = SECRET
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    if format == "PNG":
        text = PngImagePlugin.PngInfo()
        text.add_text("Patient", SECRET)
        text.add_itxt("Name", SECRET)
        return encoded(image, "PNG", exif=exif, icc_profile=profile, pnginfo=text)
    if format == "TIFF":
        return encoded(image, "TIFF", tiffinfo={270: SECRET, 315: SECRET, 34675: profile})
    return encoded(image, "JPEG", exif=exif, icc_profile=profile, comment=SECRET, xmp=SECRET.encode())


@pytest.mark.parametrize("source", ["JPEG", "PNG", "TIFF"])
@pytest.mark.parametrize("format", images.FORMATS)
def test_nothing_but_pixels_is_left(source: str, format: str) -> None:
    data = with_metadata(source)
    assert SECRET.encode() in data
    out = images.encode(images.resize(images.decode(data).pixels, 16), format=format, quality=None)
    assert SECRET.encode() not in out
    with Image.open(io.BytesIO(out)) as image:
        assert image.format == format.upper()
        assert not image.getexif()
        left = set(image.info) - {"jfif", "jfif_version", "jfif_unit", "jfif_density", "loop", "background"}
        left -= {"timestamp", "duration"}
        assert not left


def segments(data: bytes) -> set[int]:
    """The markers of a JPEG up to its scan."""
    found, place = set(), 2
    while data[place + 1] != 0xDA:
        found.add(data[place + 1])
        place += 2 + int.from_bytes(data[place + 2 : place + 4], "big")
    return found


def test_a_stored_jpeg_has_no_segment_that_could_hold_text() -> None:
    out = images.encode(images.decode(with_metadata("JPEG")).pixels, format="jpeg", quality=None)
    jfif, tables, frame, codes = 0xE0, 0xDB, 0xC0, 0xC4
    assert segments(out) == {jfif, tables, frame, codes}


@pytest.mark.parametrize("format", ["png", "webp"])
def test_png_and_webp_lose_nothing(format: str) -> None:
    array = noise(33, 33)
    assert (images.decode_stored(images.encode(array, format=format, quality=None)) == array).all()


@pytest.mark.parametrize("format", ["jpeg", "webp"])
def test_a_lower_quality_is_smaller_and_another_image(format: str) -> None:
    array = np.asarray(image_of("naevus", np.random.default_rng(0)))
    fine, coarse = (images.encode(array, format=format, quality=quality) for quality in (95, 20))
    assert len(coarse) < len(fine)
    errors = [abs(images.decode_stored(data).astype(int) - array).mean() for data in (fine, coarse)]
    assert errors[0] < errors[1]


@pytest.mark.parametrize("format", images.FORMATS)
def test_the_same_pixels_give_the_same_bytes(format: str) -> None:
    array = noise(24, 24)
    first, second = (images.encode(array.copy(), format=format, quality=None) for _ in range(2))
    assert first == second


def test_stored_images_are_read_where_the_fast_decoder_is_absent() -> None:
    program = (
        "import sys; sys.modules['simplejpeg'] = None\n"
        "import io, numpy as np; from PIL import Image; from pipeline.data import images\n"
        "out = io.BytesIO(); Image.new('RGB', (16, 8), (200, 30, 60)).save(out, 'JPEG', quality=95)\n"
        "stored, raw = images.decode_stored(out.getvalue()), images.decode(out.getvalue()).pixels\n"
        "assert stored.shape == (8, 16, 3) and (stored == raw).all(), stored\n"
        "print(images.stored_decoder())"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("pillow-")


def test_real_images_are_resized_to_the_same_bits_by_both_libraries(shared: Path) -> None:
    pytest.importorskip("cykooz_resizer", reason="cykooz-resizer is not installed")
    paths = sorted((shared / "isic2019" / "ISIC_2019_Training_Input").glob("*.jpg"))[::600]
    paths += sorted((shared / "brain_mri").rglob("*.jpg"))[::600]
    for path in paths:
        for channels in (3, 4):
            pixels = images.decode(path.read_bytes(), channels=channels).pixels
            for size in (64, 384):
                assert (resizing._by_torch(pixels, size) == resizing._by_cykooz(pixels, size)).all()
