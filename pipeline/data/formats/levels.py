"""Stored values of DICOM to grey levels: the modality's scale, then a window. A table for all values that can occur.

Every window is stated, never an image's own minimum and maximum. Without --window the modality decides
(docs/decisions/0029-formats.md says why):

CT          centre 40, width 400 in Hounsfield units
MR, PT, NM  the file's own window; without one, the 0.5th to the 99.5th percentile of the series
all others  the file's own window or table; without one, the full stored range
colour      as it is stored
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pipeline.data.decoders.formats import BadImage
from pipeline.data.formats.dicom import class_of, modality
from pipeline.data.formats.reading import PERCENTILES, STORED, VOI, Window, parse_window

SOFT_TISSUE = Window("fixed", 40, 400)
INNER = Window(PERCENTILES, 0.5, 99.5)
RELATIVE = ("MR", "PT", "NM")
"""Modalities whose values have no unit that two scans share, and often use little of their range."""


def grey_levels(
    pixels: np.ndarray, header: Any, window: str | None, ends: tuple[float, float] | None = None
) -> tuple[np.ndarray, str]:
    """Values [h, w] of 8 or 16 bits, signed or not, as uint8 [h, w], and how, in words that many files share.

    `ends` are the values of black and white where percentiles are the window; None: the frame's own percentiles.
    """
    unsigned = pixels.view(f"u{pixels.itemsize}")
    every = np.arange(1 << 8 * pixels.itemsize).astype(unsigned.dtype).view(pixels.dtype)
    values = np.asarray(scaled(every, header), np.float64)
    chosen, said = _choose(header, window)
    if chosen.kind == VOI:
        shown = _own_window(every, values, header)
    elif chosen.kind == "fixed":
        shown = linear(values, chosen.low, chosen.high)
    elif chosen.kind == PERCENTILES:
        low, high = ends or np.percentile(values[unsigned], (chosen.low, chosen.high))
        shown = (values - low) / max(high - low, 1e-9)
    else:
        low, high = value_range(header)
        shown = (values - low) / (high - low)
    levels = np.floor(np.clip(np.nan_to_num(shown), 0, 1) * 255 + 0.5).astype(np.uint8)
    if str(header.get("PhotometricInterpretation")).strip() == "MONOCHROME1":
        levels = 255 - levels
    return levels[unsigned], said


def percentiles_of(window: str | None) -> Window:
    """The percentiles of `--window`, or those by default."""
    chosen = parse_window(window) if window else INNER
    return chosen if chosen.kind == PERCENTILES else INNER


def uses_percentiles(header: Any, window: str | None) -> bool:
    """Whether a grey frame is shown between percentiles."""
    is_grey = str(header.get("PhotometricInterpretation")).strip().startswith("MONOCHROME")
    return is_grey and _choose(header, window)[0].kind == PERCENTILES


def linear(values: np.ndarray, centre: float, width: float) -> np.ndarray:
    """DICOM's linear window (PS3.3 C.11.2.1.2.1) as 0 to 1, not clipped; `width` is above 1."""
    out: np.ndarray = (values - (centre - 0.5)) / (width - 1) + 0.5
    return out


def value_range(header: Any) -> tuple[float, float]:
    """The least and the greatest value that a file can hold, on the modality's scale."""
    bits = int(header.get("BitsStored") or header.BitsAllocated)
    if header.get("ModalityLUTSequence"):
        return 0.0, float(2 ** int(header.ModalityLUTSequence[0].LUTDescriptor[2]) - 1)
    if not 1 <= bits <= 16:
        raise BadImage("is DICOM with a number of stored bits that cannot be")
    signed = int(header.get("PixelRepresentation") or 0) == 1
    ends = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed and bits > 1 else (0, 2**bits - 1)
    low, high = sorted(float(each) for each in scaled(np.array(ends, np.float64), header))
    if not low < high:
        raise BadImage("is DICOM whose scale makes all values equal")
    return low, high


def scaled(values: np.ndarray, header: Any) -> np.ndarray:
    """Stored values on the modality's scale, such as Hounsfield units."""
    from pydicom.pixels import apply_modality_lut

    out: np.ndarray = apply_modality_lut(values, header)
    return out


def _choose(header: Any, window: str | None) -> tuple[Window, str]:
    """The window, and what is said of it; a file's own is the full range where the file has none."""
    kind, own = modality(header), _has_own(header)
    if window is None:
        hounsfield = kind == "CT" and "RescaleSlope" in header and "Secondary" not in (class_of(header) or "")
        if hounsfield:
            return SOFT_TISSUE, "CT in the window 40,400 (Hounsfield units), the default"
        chosen = Window(VOI) if own else INNER if kind in RELATIVE else Window(STORED)
    else:
        chosen = parse_window(window)
    if chosen.kind == VOI and not own:
        chosen = Window(STORED)
    how = {
        VOI: "in each file's own window",
        STORED: "by the full stored range",
        PERCENTILES: f"between the percentiles {chosen.low:g} and {chosen.high:g} of each series",
        "fixed": f"in the window {chosen.low:g},{chosen.high:g}",
    }[chosen.kind]
    return chosen, f"{kind} {how}" + ("" if window else ", the default")


def _has_own(header: Any) -> bool:
    tables = header.get("VOILUTSequence")
    if tables and all(tables[0].get(word) is not None for word in ("LUTDescriptor", "LUTData")):
        return True
    return all(header.get(word) not in (None, "") for word in ("WindowCenter", "WindowWidth"))


def _own_window(every: np.ndarray, values: np.ndarray, header: Any) -> np.ndarray:
    """The file's first table or window, as 0 to 1."""
    tables = header.get("VOILUTSequence")
    if tables and all(tables[0].get(word) is not None for word in ("LUTDescriptor", "LUTData")):
        from pydicom.pixels import apply_voi

        levels = np.asarray(apply_voi(scaled(every, header), header), np.float64)
        shown: np.ndarray = levels / (2 ** int(tables[0].LUTDescriptor[2]) - 1)
        return shown
    centre, width = (_first(header.get(word)) for word in ("WindowCenter", "WindowWidth"))
    function = str(header.get("VOILUTFunction") or "LINEAR").strip().upper()
    if width <= 0 or (width <= 1 and function == "LINEAR"):
        if width != 1:
            raise BadImage("has a window of its own that cannot be; give another --window")
        return (values > centre - 0.5).astype(np.float64)
    if function == "SIGMOID":
        out: np.ndarray = 1 / (1 + np.exp(np.clip(-4 * (values - centre) / width, -700, 700)))
        return out
    if function == "LINEAR_EXACT":
        exact: np.ndarray = (values - centre) / width + 0.5
        return exact
    if function != "LINEAR":
        raise BadImage("has a window of a kind that DICOM does not know; give another --window")
    return linear(values, centre, width)


def _first(value: Any) -> float:
    return float(value if isinstance(value, (int, float, str)) else value[0])
