"""What a dataset is to the pipeline: records with paths and labels; no image is opened here."""

from __future__ import annotations

import csv
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

# Files that lie beside images; everything else is taken for one, and decoding tells.
BESIDE = set(".csv .tsv .txt .md .json .jsonl .xml .html .pdf .doc .docx .xls .xlsx .yaml .yml .toml .ini .log".split())
BESIDE |= set(".db .py .ipynb .m .mat .zip .tar .gz .sha256 .md5".split())
MARK = "STAND-IN.txt"  # a file that says: the images beside me are drawn, not the dataset's
SYSTEM = (".DS_Store", "._", "Thumbs.db", "desktop.ini")


@dataclass(frozen=True, kw_only=True)
class Record:
    """One image as its dataset lists it."""

    key: str | None
    """An id the dataset publishes, or None: the key is then a hash, for a file name can hold a patient's name."""
    path: Path
    labels: tuple[str, ...] | None
    """Class names; empty: none of the classes (multi-label); None: not labelled, for pretraining only."""
    group: str | None = None
    """The lesion or patient it shows, where known."""
    split: str | None = None
    """`train`, `val` or `test` where the curator fixed it."""
    problem: str | None = None
    """Why it cannot be used, when the listing itself shows it."""


@dataclass(frozen=True, kw_only=True)
class Listing:
    """All records of a dataset with the classes and the task they make up."""

    classes: tuple[str, ...]
    task: str
    """`multi-class` (one class an image) or `multi-label`."""
    records: list[Record]


@dataclass(frozen=True, kw_only=True)
class Published:
    """What is known of a dataset without having it, for `pipeline.verify` and for stand-ins."""

    source: str
    """Who says so."""
    counts: Mapping[str, Mapping[str, int]]
    """Images by part (a split its curator fixed, else "all") and class; no classes where nobody published them."""
    smallest: tuple[int, int]
    largest: tuple[int, int]
    """Sides in pixels, the shorter first; an image may lie either way. The same twice: every image has this size."""
    modes: tuple[str, ...]
    """Pillow's names of how its pixels are stored."""
    ids: str | frozenset[str] | None = None
    """All ids, or a regular expression that each fulfils."""
    images: int = 0
    """How many; 0: the sum of `counts`."""
    groups: int | None = None
    """How many lesions or patients."""

    @property
    def total(self) -> int:
        return self.images or sum(sum(classes.values()) for classes in self.counts.values())


@dataclass(frozen=True, kw_only=True)
class Source:
    """A file that its publisher offers to everyone, for `pipeline.download`."""

    address: str
    gives: str
    """What it becomes in the raw folder: the file's name, or the folder that an archive holds."""
    sha256: str | None = None
    """None: nobody publishes a checksum."""


class Dataset(ABC):
    """A plugin. `DATASET` in each module of this package is one."""

    name: str
    classes: tuple[str, ...]
    """The class names in the order of their indices; empty when only the files tell."""
    task: str
    metric: str
    """The metric of the paper's tables for it, a name from `learn.metrics`."""
    label_fractions: tuple[float, ...]
    obtain: str
    """How one lawfully gets the files."""
    published: Published | None = None
    sources: tuple[Source, ...] = ()
    """Empty: it has no address that answers everyone."""

    @abstractmethod
    def listing(self, root: Path) -> Listing:
        """List the images under `root`; `ValueError` naming what is missing and how to get it."""

    def need(self, path: Path) -> Path:
        """`path`, or an error that says what is missing and where it comes from."""
        if not path.exists():
            raise ValueError(f"{self.name}: there is no {path}; give --raw the folder that holds it. {self.obtain}")
        return path


def read_csv(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    """The header and rows of a CSV file (UTF-8, with or without a byte-order mark), cells stripped."""
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            header = [name.strip() for name in reader.fieldnames or []]
            rows = []
            for number, row in enumerate(reader, start=2):
                if None in row or None in row.values():
                    raise ValueError(f"{path}, line {number}: it has another number of cells than the header; mend it")
                rows.append({name.strip(): cell.strip() for name, cell in row.items()})
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 ({error}); save it as UTF-8") from error
    return header, rows


def images_under(root: Path, *, hidden: bool = False) -> Iterator[Path]:
    """Every file below `root` that may be an image, in a fixed order.

    Left out: tables, texts and archives by their endings, what operating systems leave behind, and, unless asked for,
    hidden files and folders.
    """
    for path in sorted(root.rglob("*")):
        is_hidden = any(part.startswith(".") for part in path.relative_to(root).parts)
        beside = path.suffix.lower() in BESIDE or path.name.startswith(SYSTEM)
        if path.is_file() and not beside and (hidden or not is_hidden):
            yield path


def without_duplicates(records: list[Record], *, name: str = "id") -> list[Record]:
    """Turn repeated keys into problems: a repetition is left out, contradicting rows are left out altogether."""
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
