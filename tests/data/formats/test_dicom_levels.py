"""Stored values of DICOM to grey levels: every window by hand, and what each modality gets by default."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import hospital
import numpy as np
import pytest
from hospital import header, save, with_pixels
from pydicom.dataset import Dataset

from pipeline.data.decoders.formats import BadImage
from pipeline.data.formats import dicom, dicom_pixels
from pipeline.data.formats.reading import Reading, Secret
from pipeline.data.images import Decoded

HALF = 128  # 127.5, rounded up


def decoded(path: Path, window: str | None = None, part: tuple[int, ...] = (), **more: Any) -> Decoded:
    with open(path, "rb") as file:
        return dicom_pixels.decode(file, part, Reading(window=window), channels=3, **({"memory": None} | more))


def greys(path: Path, window: str | None = None, part: tuple[int, ...] = ()) -> list[int]:
    """The levels of the first row."""
    pixels = decoded(path, window, part).pixels
    assert (pixels[..., 0] == pixels[..., 1]).all() and (pixels[..., 0] == pixels[..., 2]).all()
    out: list[int] = pixels[0, :, 0].tolist()
    return out


def row(values: list[int], dtype: str) -> np.ndarray:
    return np.array([values, values], dtype)


def ct(values: list[int], **more: Any) -> Dataset:
    ds = header("CT")
    ds.RescaleSlope, ds.RescaleIntercept = 1, -1024
    for word, value in more.items():
        setattr(ds, word, value)
    return with_pixels(ds, row(values, "i2"), bits=12)


def test_ct_is_shown_in_hounsfield_units_whatever_its_own_window(tmp_path: Path) -> None:
    # -160 is black and 239 white: 40 - 0.5 -/+ 399 / 2 (PS3.3 C.11.2.1.2.1); 1024 is added in the file
    path = save(ct([0, 863, 864, 1064, 1263, 2000], WindowCenter=600, WindowWidth=1500), tmp_path / "1")
    levels = greys(path)
    assert levels == [0, 0, 0, HALF, 255, 255]
    assert decoded(path).remarks == ("CT in the window 40,400 (Hounsfield units), the default",)


def test_a_window_of_the_users_is_used_instead(tmp_path: Path) -> None:
    path = save(ct([0, 424, 1174]), tmp_path / "1")  # -1024, -600, 150
    assert greys(path, "-600,1501") == [56, HALF, 255]  # (-1024 + 600.5) / 1500 + 0.5 = 0.2177 of 255
    assert decoded(path, "-600,1501").remarks == ("CT in the window -600,1501",)


def test_the_full_stored_range_is_that_of_the_stored_bits(tmp_path: Path) -> None:
    signed = save(ct([-2048, 0, 2047]), tmp_path / "1")
    assert greys(signed, "stored") == [0, HALF, 255]
    unsigned = save(with_pixels(header("CR"), row([0, 2047, 4095], "u2"), bits=12), tmp_path / "2")
    assert greys(unsigned, "stored") == [0, 127, 255]  # 2047 / 4095 is a little less than half
    eight = save(with_pixels(header("US"), row([0, 7, 255], "u1")), tmp_path / "3")
    assert greys(eight) == [0, 7, 255]


@pytest.mark.parametrize(
    ("function", "wanted"),
    [
        ("LINEAR", [0, 0, 32, 64, 96, 128, 159, 191, 223, 255, 255]),  # (x - 499.5) / 799 + 0.5
        ("LINEAR_EXACT", [0, 0, 32, 64, 96, 128, 159, 191, 223, 255, 255]),
        ("SIGMOID", [19, 31, 47, 69, 96, 128, 159, 186, 208, 224, 236]),  # 1 / (1 + exp(-4 (x - 500) / 800))
    ],
)
def test_the_files_own_window_is_read_by_its_function(tmp_path: Path, function: str, wanted: list[int]) -> None:
    ds = header("CR")
    ds.WindowCenter, ds.WindowWidth, ds.VOILUTFunction = 500, 800, function
    path = save(with_pixels(ds, row(list(range(0, 1001, 100)), "u2"), bits=12), tmp_path / "1")
    assert np.abs(np.array(greys(path, "voi")) - wanted).max() <= 1


def test_the_first_of_several_windows_counts_and_a_table_comes_before_windows(tmp_path: Path) -> None:
    ds = header("CR")
    ds.WindowCenter, ds.WindowWidth = [100, 1000], [3, 50]
    with_pixels(ds, row([98, 100, 102], "u2"))
    assert greys(save(ds, tmp_path / "1"), "voi")[::2] == [0, 255]
    table = Dataset()
    table.LUTDescriptor, table.LUTData = [3, 99, 16], [0, 32768, 65535]
    ds.VOILUTSequence = [table]
    table["LUTDescriptor"].VR = table["LUTData"].VR = "US"
    assert greys(save(ds, tmp_path / "2"), "voi") == [0, HALF, 255]


def test_in_monochrome1_small_values_are_white(tmp_path: Path) -> None:
    ds = with_pixels(header("CR"), row([0, 4095], "u2"), bits=12, interpretation="MONOCHROME1")
    assert greys(save(ds, tmp_path / "1")) == [255, 0]


def test_mr_without_a_window_is_shown_between_stated_percentiles_and_not_by_its_extremes(tmp_path: Path) -> None:
    values = np.full((40, 100), 0, np.uint16)
    values[:, :] = np.arange(100) * 10
    values[0, 0] = 60000  # one bright pixel does not decide
    path = save(with_pixels(header("MR"), values), tmp_path / "1")
    pixels = decoded(path).pixels[1, :, 0]
    assert pixels[0] == 0 and pixels[99] == 255 and abs(int(pixels[50]) - 128) < 3
    assert decoded(path).remarks == ("MR between the percentiles 0.5 and 99.5 of each series, the default",)


def test_mr_with_a_window_is_shown_in_it(tmp_path: Path) -> None:
    ds = header("MR")
    ds.WindowCenter, ds.WindowWidth = 50.5, 101
    path = save(with_pixels(ds, row([0, 50, 100], "u2")), tmp_path / "1")
    assert greys(path) == [0, HALF, 255]
    assert decoded(path).remarks == ("MR in each file's own window, the default",)


def test_ct_without_hounsfield_units_is_not_shown_as_if_it_had_them(tmp_path: Path) -> None:
    path = save(with_pixels(header("CT"), row([0, 128, 255], "u1")), tmp_path / "1")
    assert greys(path) == [0, 128, 255]
    assert decoded(path).remarks == ("CT by the full stored range, the default",)


def test_a_negative_slope_turns_the_values_around(tmp_path: Path) -> None:
    ds = header("CR")
    ds.RescaleSlope, ds.RescaleIntercept = -1, 255
    path = save(with_pixels(ds, row([0, 64, 255], "u1")), tmp_path / "1")
    assert greys(path, "stored") == [255, 191, 0]


def test_colours_of_16_bits_are_read_by_their_high_byte_and_no_window_touches_colour(tmp_path: Path) -> None:
    pixels = np.array([[[0x1234, 0xABCD, 0xFFFF]]], np.uint16)
    path = save(with_pixels(header("OT"), pixels), tmp_path / "1")
    assert decoded(path, "40,400").pixels.tolist() == [[[0x12, 0xAB, 0xFF]]]


def test_each_frame_of_an_enhanced_file_has_its_own_scale(tmp_path: Path) -> None:
    ds = header("MR")
    with_pixels(ds, np.stack([row([0, 100], "u2"), row([0, 100], "u2")]))
    ds.PerFrameFunctionalGroupsSequence = []
    for centre in (50.5, 100.5):
        group, window = Dataset(), Dataset()
        window.WindowCenter, window.WindowWidth = centre, 101
        group.FrameVOILUTSequence = [window]
        ds.PerFrameFunctionalGroupsSequence.append(group)
    path = save(ds, tmp_path / "1")
    assert greys(path, "voi", (0,)) == [0, 255] and greys(path, "voi", (1,)) == [0, HALF]


def test_an_image_that_needs_more_memory_than_a_worker_has_is_refused(tmp_path: Path) -> None:
    path = save(with_pixels(header("CR"), np.zeros((600, 600), np.uint16)), tmp_path / "1")
    with pytest.raises(BadImage, match="600 × 600 pixels, more than the 1 MB that a worker may take"):
        decoded(path, memory=1_000_000)


@pytest.mark.parametrize("window", ["", "wide", "40", "40,0", "40,1", "percentiles=9", "percentiles=99,1", "nan,inf"])
def test_what_is_no_window_is_refused(window: str) -> None:
    with pytest.raises(ValueError, match="--window is"):
        Reading(window=window)


# --- What is refused, or is no image ---------------------------------------------------------------------------------


def found(path: Path, **more: Any) -> Any:
    with open(path, "rb") as file:
        return dicom.find_images(file, Reading(**more), Secret(b"key", False))


def test_text_burnt_into_the_pixels_is_refused_unless_it_is_allowed(tmp_path: Path) -> None:
    ds = with_pixels(header("US"), row([1, 2], "u1"))
    ds.BurnedInAnnotation = "YES"
    path = save(ds, tmp_path / "1")
    with pytest.raises(BadImage, match="says that text is burnt into its pixels; check it, then --allow-burned-in"):
        found(path)
    assert found(path, allow_burned_in=True).parts == ((),)
    ds.BurnedInAnnotation = "NO"
    assert found(save(ds, tmp_path / "2")).unsure is None
    del ds.BurnedInAnnotation
    assert found(save(ds, tmp_path / "3")).unsure == "US that does not say whether text is burnt into its pixels"


def test_floating_point_pixels_and_more_frames_than_bytes_are_refused(tmp_path: Path) -> None:
    ds = with_pixels(header("MR"), np.stack([row([1, 2], "u2")] * 2))
    ds.NumberOfFrames = 100_000
    with pytest.raises(BadImage, match="claims more frames than its bytes can hold"):
        found(save(ds, tmp_path / "1"))
    del ds.PixelData
    ds.FloatPixelData = np.zeros(8, np.float32).tobytes()
    with pytest.raises(BadImage, match="floating-point numbers"):
        found(save(ds, tmp_path / "2"))


def test_an_unknown_transfer_syntax_and_photometric_interpretation_are_refused(tmp_path: Path) -> None:
    ds = with_pixels(header("OT"), row([1, 2], "u1"), interpretation="HSV")
    with pytest.raises(BadImage, match="photometric interpretation that is not read here"):
        decoded(save(ds, tmp_path / "1"))
    data = save(with_pixels(header("OT"), row([1, 2], "u1")), tmp_path / "2").read_bytes()
    place = data.index(b"1.2.840.10008.1.2.1\0")
    (tmp_path / "3").write_bytes(data[:place] + b"1.2.840.10008.1.2.9\0" + data[place + 20 :])
    with pytest.raises(BadImage, match="is DICOM in an unknown transfer syntax, which is not read here"):
        decoded(tmp_path / "3")


def test_without_the_reader_the_reason_names_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    path = save(with_pixels(header("OT"), row([1, 2], "u1")), tmp_path / "1")
    monkeypatch.setitem(sys.modules, "pydicom", None)
    wanted = r'needs the library pydicom: pip install "cass-pipeline\[medical\]", then shard again'
    with pytest.raises(BadImage, match=wanted):
        found(path)


def test_ids_are_hashed_with_a_key_and_a_key_of_the_users_makes_the_same_hashes_again(tmp_path: Path) -> None:
    path = save(with_pixels(header("CT", patient="PAT7"), row([1, 2], "u2")), tmp_path / "1")
    by_key = {}
    for key, given in ((b"one", True), (b"two", True), (b"one", False)):
        with open(path, "rb") as file:
            by_key[key, given] = dicom.find_images(file, Reading(), Secret(key, given))
    one, two, drawn = by_key.values()
    assert len({one.group, two.group}) == 2 and one.group == drawn.group
    assert one.id != two.id and drawn.id not in (one.id, two.id)
    assert "PAT7" not in repr(by_key) and hospital.ROOT not in repr(by_key)
