"""What the pipeline knows of a dataset: its records, with paths and labels, and what is published of it.

A listing accounts for all that is found: each image is a record, everything else is passed over with its kind.
No image is opened here.
"""

from __future__ import annotations

import os
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

STANDIN_MARK = "STAND-IN.txt"
"""The file that marks a stand-in: the images in its folder are drawn and are not the dataset's."""


@dataclass(frozen=True, kw_only=True)
class Record:
    """One image as its dataset lists it."""

    key: str | None
    """An id that the dataset publishes. None: the key becomes a hash, because a file name can hold a patient's name."""
    path: Path
    labels: tuple[str, ...] | None
    """Class names; empty: none of the classes (multi-label); None: not labelled, for pretraining only."""
    group: str | None = None
    """The lesion or patient it shows, where known."""
    split: str | None = None
    """`train`, `val` or `test` where the curator fixed it."""
    problem: str | None = None
    """Why it cannot be used, where the listing itself shows that."""
    part: tuple[int, ...] = ()
    """Which image of a file that holds several; empty until the file is read."""


class PassedOver(NamedTuple):
    """A file that is not taken for an image, or a folder (counted as one) that is not listed."""

    path: Path
    kind: str
    """Why, in words that many share: an ending, `hidden`, `masks`."""


@dataclass(frozen=True, kw_only=True)
class ByHeader:
    """Labels of a table whose rows name patients, studies, series or images as headers of files do."""

    level: str
    """`patient`, `study`, `series` or `sop`."""
    rows: Mapping[str, Record]
    """By the id; only labels, group, split and problem of these records count."""


@dataclass(frozen=True, kw_only=True)
class Listing:
    """All records of a dataset, with its classes and its task."""

    classes: tuple[str, ...]
    task: str
    """`multi-class` (one class an image) or `multi-label`."""
    records: list[Record]
    passed_over: tuple[PassedOver, ...] = ()
    notes: tuple[str, ...] = ()
    """What a person must know of how files and tables were read: sentences without names of files."""
    by_header: ByHeader | None = None
    """None also once the headers are read: it holds ids as they are."""


@dataclass(frozen=True, kw_only=True)
class Published:
    """What is published of a dataset, for `pipeline.verify` and for stand-ins."""

    source: str
    """Who published it."""
    counts: Mapping[str, Mapping[str, int]]
    """Images by part (a split that the curator fixed, else "all") and class; no classes where nobody published them."""
    smallest: tuple[int, int]
    largest: tuple[int, int]
    """Sides in pixels, the shorter one first, whatever the image's orientation. Equal: every image has this size."""
    modes: tuple[str, ...]
    """Pillow's names for how the pixels are stored."""
    ids: str | frozenset[str] | None = None
    """All ids, or a regular expression that each of them matches."""
    images: int = 0
    """Their number; 0: the sum of `counts`."""
    groups: int | None = None
    """The number of lesions or patients."""

    @property
    def total(self) -> int:
        return self.images or sum(sum(classes.values()) for classes in self.counts.values())


@dataclass(frozen=True, kw_only=True)
class Source:
    """A file that its publisher offers to everyone, for `pipeline.download`."""

    address: str
    target: str
    """What it becomes in the raw folder: the file's own name, or the folder that an archive holds."""
    sha256: str | None = None
    """None: nobody publishes a checksum."""

    @property
    def file_name(self) -> str:
        return self.address.rpartition("/")[2]

    @property
    def is_archive(self) -> bool:
        return self.file_name != self.target


class Dataset(ABC):
    """A dataset plugin. Each module of `pipeline.data.datasets` has one as its DATASET."""

    name: str
    classes: tuple[str, ...]
    """The class names in the order of their indices; empty where only the files tell."""
    task: str
    metric: str
    """The metric of the paper's tables for it, a name from `learn.metrics`."""
    label_fractions: tuple[float, ...]
    obtain: str
    """How to get the files lawfully."""
    published: Published | None = None
    sources: tuple[Source, ...] = ()
    """Empty: no address gives its files to everyone."""

    @abstractmethod
    def listing(self, root: Path) -> Listing:
        """List the images under `root`; raises `ValueError` that names what is missing and how to get it."""

    def require(self, path: Path) -> Path:
        """`path` itself; raises `ValueError` that says how to get the files if it does not exist."""
        if not path.exists():
            raise ValueError(f"{self.name}: there is no {path}; give --raw the folder that holds it. {self.obtain}")
        return path


def plain_name(name: str) -> str:
    """A name in lower case with letters and digits only: two spellings of one name become equal."""
    return re.sub("[^a-z0-9]", "", name.lower())


def mark_duplicates(records: list[Record], *, name: str = "id") -> list[Record]:
    """Give records that share a key (or a file) a problem: equal rows all but the first, differing rows all of them."""
    rows: dict[str, list[int]] = {}
    folders: dict[Path, str] = {}
    for position, record in enumerate(records):
        rows.setdefault(record.key or place(record.path, folders), []).append(position)
    out = list(records)
    for key, positions in rows.items():
        if len(positions) == 1:
            continue
        what = f"{name} {key}" if records[positions[0]].key else name
        places = [replace(records[p], path=Path(place(records[p].path, folders))) for p in positions]
        if len(set(places)) > 1:
            for p in positions:
                out[p] = replace(records[p], problem=f"duplicate {what} with differing rows")
        else:
            for p in positions[1:]:
                out[p] = replace(records[p], problem=f"duplicate {what}: the same row again")
    return out


def place(path: Path, folders: dict[Path, str]) -> str:
    """Where a file is, however its path is spelled (`x/../a.png`); a link to a file is a file of its own.

    `folders` keeps what is known of folders.
    """
    if path.name in ("..", ""):
        return str(path)
    parent = path.parent
    if parent not in folders:
        folders[parent] = os.path.realpath(parent) if "\0" not in str(parent) else str(parent)
    return os.path.join(folders[parent], path.name)
