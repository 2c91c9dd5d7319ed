"""How files that hold several images, or values that need a window, are to be read: flags of `pipeline.shard`."""

from __future__ import annotations

import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, NamedTuple

import numpy as np

from pipeline.data.decoders.formats import BadImage

Part = tuple[int, ...]
"""Which image of a file, as its format numbers them; empty: the file holds one."""
Stamp = tuple[int, int]
"""Size of a file in bytes and its time of change in ns: whether a file that was hashed is still the same."""

STORED, VOI, PERCENTILES = "stored", "voi", "percentiles"
NONBLANK = "nonblank"
AXES = ("sagittal", "coronal", "axial")
MOST = 100_000  # images that are taken of a file: a few bytes can claim to hold any number


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What the user decided; raises `ValueError` for what makes no sense.

    The fields that differ from their defaults are part of the fingerprint.
    """

    frames: str | None = None
    """Of multi-frame DICOM, TIFF of several pages and animations: `all`, `middle`, `every=N`.

    None: all of a DICOM; the others are quarantined.
    """
    slices: str | None = None
    """Of NIfTI: the same, or `nonblank`; None: quarantined."""
    axis: str = "axial"
    """The plane of NIfTI's slices, one of AXES."""
    window: str | None = None
    """`stored`, `voi`, `C,W` or `percentiles=LOW,HIGH`; None: by modality."""
    tiles: str | None = None
    """Of slides: `mpp=X` (micrometres a pixel) or `level=N`; None: they are read as other TIFFs are."""
    tile_side: int = 256
    """In pixels at that resolution."""
    tile_overlap: int = 0
    tiles_most: int | None = None
    """How many tiles of a slide are taken at most, drawn with a fixed seed."""
    allow_burned_in: bool = False
    """Whether DICOM that says that text is burnt into its pixels is used."""

    def __post_init__(self) -> None:
        if self.frames is not None:
            pick(self.frames, 1, "--frames")
        if self.slices not in (None, NONBLANK):
            pick(str(self.slices), 1, "--slices", f"all, middle, every=N or {NONBLANK}")
        if self.axis not in AXES:
            raise ValueError(f"--axis is {self.axis!r}; give {', '.join(AXES[:2])} or {AXES[2]}")
        if self.window is not None:
            parse_window(self.window)
        if self.tiles is not None:
            parse_tiles(self.tiles)
        if not 8 <= self.tile_side <= 8192:
            raise ValueError(f"--tile-side is {self.tile_side}; give a side between 8 and 8192 pixels")
        if not 0 <= self.tile_overlap < self.tile_side:
            raise ValueError(f"--tile-overlap is {self.tile_overlap}; give 0 or more, and less than --tile-side")
        if self.tiles_most is not None and self.tiles_most < 1:
            raise ValueError(f"--tiles-most is {self.tiles_most}; give 1 or more")

    def to_json(self) -> dict[str, Any]:
        """The fields that differ from their defaults."""
        values = {each.name: (getattr(self, each.name), each.default) for each in fields(self)}
        return {name: value for name, (value, default) in values.items() if value != default}


def pick(text: str, count: int, flag: str, known: str = "all, middle or every=N") -> list[int]:
    """The numbers of the images that `all`, `middle` or `every=N` takes of `count`; raises `ValueError`.

    Raises `BadImage` for more than MOST.
    """
    if text == "all":
        check_count(count)
        return list(range(count))
    if text == "middle":
        return [(count - 1) // 2]
    if match := re.fullmatch(r"every=([1-9][0-9]{0,8})", text, re.ASCII):
        check_count(len(range(0, count, int(match[1]))))
        return list(range(0, count, int(match[1])))
    raise ValueError(f"{flag} is {text!r}; give {known}")


def check_count(count: int) -> None:
    """Raise `BadImage` for more images than are taken of a file."""
    if count > MOST:
        raise BadImage(f"holds {count:,} images, more than {MOST:,}")


def parse_tiles(text: str) -> tuple[str, float]:
    """`mpp` or `level`, with its number; raises `ValueError`."""
    if match := re.fullmatch(r"(mpp)=([0-9]+(?:\.[0-9]+)?)|(level)=([0-9]{1,3})", text, re.ASCII):
        kind, value = match[1] or match[3], float(match[2] or match[4])
        if kind == "level" or value > 0:
            return kind, value
    raise ValueError(f"--tiles is {text!r}; give micrometres a pixel, mpp=0.5, or a level of the slide, level=0")


class Window(NamedTuple):
    """How values become grey levels: `kind` is STORED, VOI, PERCENTILES, or `fixed` with centre and width."""

    kind: str
    low: float = 0.0
    """Of percentiles; of a fixed window the centre."""
    high: float = 0.0
    """Of percentiles; of a fixed window the width."""


def parse_window(text: str) -> Window:
    """Raises `ValueError` for what is no window."""
    if text in (STORED, VOI):
        return Window(text)
    number = r"([+-]?[0-9]+(?:\.[0-9]+)?)"
    if match := re.fullmatch(rf"percentiles={number},{number}", text, re.ASCII):
        low, high = float(match[1]), float(match[2])
        if 0 <= low < high <= 100:
            return Window(PERCENTILES, low, high)
    elif match := re.fullmatch(rf"{number},{number}", text, re.ASCII):
        if float(match[2]) > 1:
            return Window("fixed", float(match[1]), float(match[2]))
    raise ValueError(
        f"--window is {text!r}; give {STORED}, {VOI}, a centre and a width such as --window=-600,1500, or "
        f"{PERCENTILES}=0.5,99.5"
    )


@dataclass(frozen=True)
class Secret:
    """The key of the hashes that stand for ids of patients, studies and images."""

    key: bytes
    is_given: bool
    """Whether it is the user's: hashes are then the same in another dataset. Else it is drawn for one command."""

    @property
    def known_by(self) -> str | None:
        """What tells the user's key from another one and does not give it away; None for one that was drawn."""
        return self.hash("key", "") if self.is_given else None

    def hash(self, what: str, value: str) -> str:
        """20 hexadecimal digits."""
        return hmac.new(self.key, f"{what}\x1f{value}".encode(errors="replace"), "sha256").hexdigest()[:20]

    def lasting_hash(self, what: str, value: str) -> str:
        """The same in every run: with the user's key, or without a key."""
        return self.hash(what, value) if self.is_given else Secret(b"", False).hash(what, value)


@dataclass(frozen=True, kw_only=True)
class Found:
    """What the header of a file says of the images in it. No value of the header is in it as it is."""

    parts: tuple[Part, ...] = ((),)
    kind: str = ""
    """What the closing table counts it as: a modality, `NIfTI`."""
    id: str | None = None
    """A hash of the id of its content, for keys: the same in every run."""
    is_keyed: bool = False
    """Whether hashes are with the user's key, and so the same in every run."""
    group: str | None = None
    """A keyed hash of the patient's id; of its study's where it names no patient."""
    ids: Mapping[str, str] = field(default_factory=dict)
    """Keyed hashes by the columns of a table of labels: patient, study, series, sop."""
    values: np.ndarray | None = None
    """Some values of it, float32 [n], if percentiles of its series are its window."""
    no_image: str | None = None
    """What it is if it is made to hold no image, in words that many files share."""
    unsure: str | None = None
    """What a person should know of it, in words that many files share."""


def missing(extra: str, library: str) -> BadImage:
    """What is said of a file whose reader is not installed."""
    return BadImage(f'needs the library {library}: pip install "cass-pipeline[{extra}]", then shard again')
