"""What the pipeline knows of a dataset: its records, with paths and labels, and what is published of it.

No image is opened here.
"""

from __future__ import annotations

import csv
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

STANDIN_MARK = "STAND-IN.txt"
"""The file that marks a stand-in: the images in its folder are drawn and are not the dataset's."""

# Endings and names of files that are no images. Every other file counts as an image until decoding it fails.
NOT_IMAGES = set(".csv .tsv .txt .md .json .jsonl .xml .html .pdf .doc .docx .xls .xlsx .yaml .yml .toml .ini".split())
NOT_IMAGES |= set(".log .db .py .ipynb .m .mat .zip .tar .gz .sha256 .md5".split())
SYSTEM_FILES = (".DS_Store", "._", "Thumbs.db", "desktop.ini")


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


@dataclass(frozen=True, kw_only=True)
class Listing:
    """All records of a dataset, with its classes and its task."""

    classes: tuple[str, ...]
    task: str
    """`multi-class` (one class an image) or `multi-label`."""
    records: list[Record]


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


def read_csv(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    """The header and the rows of a CSV file (UTF-8, with or without a byte-order mark), cells stripped.

    Raises `ValueError` for another encoding and for a row that has more or fewer cells than the header.
    """
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            header = [name.strip() for name in reader.fieldnames or []]
            rows = []
            for number, row in enumerate(reader, start=2):
                if None in row or None in row.values():
                    raise ValueError(f"{path}, line {number}: it has more or fewer cells than the header; fix the line")
                rows.append({name.strip(): cell.strip() for name, cell in row.items()})
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 ({error}); save it as UTF-8") from error
    return header, rows


def images_under(root: Path, *, hidden: bool = False) -> Iterator[Path]:
    """Every file below `root` that may be an image, in a fixed order.

    Tables, texts and archives (by their endings) and files of operating systems are skipped; hidden files and
    folders are skipped too, except with `hidden`.
    """
    for path in sorted(root.rglob("*")):
        is_hidden = any(part.startswith(".") for part in path.relative_to(root).parts)
        is_other = path.suffix.lower() in NOT_IMAGES or path.name.startswith(SYSTEM_FILES)
        if path.is_file() and not is_other and (hidden or not is_hidden):
            yield path


def plain_name(name: str) -> str:
    """A name in lower case with letters and digits only: two spellings of one name become equal."""
    return re.sub("[^a-z0-9]", "", name.lower())


def mark_duplicates(records: list[Record], *, name: str = "id") -> list[Record]:
    """Give records that share a key (or a path) a problem: equal rows all but the first, differing rows all of them."""
    rows: dict[str, list[int]] = {}
    for position, record in enumerate(records):
        rows.setdefault(record.key or str(record.path), []).append(position)
    out = list(records)
    for key, positions in rows.items():
        what = f"{name} {key}" if records[positions[0]].key else name
        if len({records[p] for p in positions}) > 1:
            for p in positions:
                out[p] = replace(records[p], problem=f"duplicate {what} with differing rows")
        else:
            for p in positions[1:]:
                out[p] = replace(records[p], problem=f"duplicate {what}: the same row again")
    return out
