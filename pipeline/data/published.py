"""Compare a raw folder with what is published of its dataset: counts, ids, groups, sizes and modes.

Reads listings and image headers only and changes nothing.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from pipeline.core.console import counted, visible
from pipeline.data.decoders.formats import BadImage, open_image
from pipeline.data.records import STANDIN_MARK, Dataset, Listing, Published, Record

NAMED = 5  # names that a finding lists; it counts the others

Progress = Callable[..., Iterator[Any]]


class Incomplete(ValueError):
    """A raw folder lacks a file without which its images cannot be listed."""


class Finding(NamedTuple):
    """One thing in a raw folder that is not as published."""

    kind: str
    """`missing`, `differing`, `surplus`, or `note`, which is no difference."""
    text: str


class Count(NamedTuple):
    """The images of one class in one part."""

    part: str
    label: str
    here: int
    published: int | None
    """None: not published."""


@dataclass
class RawImages:
    """The images that a listing names, as their headers describe them."""

    usable: list[Record] = field(default_factory=list)
    absent: list[str] = field(default_factory=list)
    """Names of images that a table lists and that do not exist."""
    unusable: list[str] = field(default_factory=list)
    """Names of images that cannot be used, each with its reason."""
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    """Width and height of the usable images."""
    modes: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class Comparison:
    """A raw folder next to what is published of its dataset."""

    usable: int
    """Images that can be used."""
    published: int
    """Images in the published dataset."""
    counts: list[Count]
    findings: list[Finding]

    @property
    def differs(self) -> bool:
        return any(finding.kind != "note" for finding in self.findings)


def compare_folder(dataset: Dataset, raw: Path, *, progress: Progress) -> Comparison:
    """Compare the raw folder of `dataset` with what is published of it.

    Raises `Incomplete` if the images cannot be listed, and `ValueError` if the folder does not exist or nothing is
    published of the dataset.
    """
    known = dataset.published
    if known is None:
        raise ValueError(f"nothing is published of {dataset.name!r} to compare with")
    dataset.require(raw)
    try:
        listing = dataset.listing(raw)
    except ValueError as error:
        raise Incomplete(str(error)) from error
    images = read_headers(listing, progress=progress)
    findings = [*_compare_counts(images, known), *_compare_ids(images, known), *_compare_headers(images, known)]
    if (raw / STANDIN_MARK).exists():
        findings.append(Finding("differing", "this folder holds a stand-in: drawn images, not the dataset"))
    return Comparison(len(images.usable), known.total, _counts(images, listing, known), findings)


def read_headers(listing: Listing, *, progress: Progress) -> RawImages:
    """Read the headers of all images in `listing`; one that cannot be read does not stop the others."""
    out = RawImages()
    for record in progress(listing.records, total=len(listing.records), what="reading headers"):
        name = record.path.name
        if not os.path.lexists(record.path):
            out.absent.append(name)
        elif record.problem:
            out.unusable.append(f"{name} ({record.problem})")
        elif not os.path.isfile(record.path):
            out.unusable.append(f"{name} (is no file, or a link to one that is not there)")
        else:
            try:
                with open_image(record.path) as image:
                    size, mode = image.size, image.mode
            except BadImage as error:
                out.unusable.append(f"{name} ({error})")
                continue
            except Exception as error:  # a broken header can raise anything
                out.unusable.append(f"{name} (cannot be read: {type(error).__name__})")
                continue
            out.usable.append(record)
            out.sizes[size] += 1
            out.modes[mode] += 1
    return out


def _count_images(images: RawImages, known: Published) -> Counter[tuple[str, str]]:
    """The usable images by part and class."""
    out: Counter[tuple[str, str]] = Counter()
    for record in images.usable:
        part = record.split if record.split in known.counts else "all"
        out.update((str(part), label) for label in record.labels or ())
    return out


def _counts(images: RawImages, listing: Listing, known: Published) -> list[Count]:
    here = _count_images(images, known)
    counts = [
        Count(part, label, here[part, label], count)
        for part, classes in known.counts.items()
        for label, count in classes.items()
    ]
    return counts or [Count("all", label, here["all", label], None) for label in listing.classes]


def _compare_counts(images: RawImages, known: Published) -> list[Finding]:
    here = _count_images(images, known)
    names = {
        (part, label): (label if part == "all" else f"{label} ({part})", count)
        for part, classes in known.counts.items()
        for label, count in classes.items()
    }
    too_few = [f"{count - here[key]:,} of {name}" for key, (name, count) in names.items() if here[key] < count]
    too_many = [f"{here[key] - count:,} of {name}" for key, (name, count) in names.items() if here[key] > count]
    if not names:
        lacking = known.total - len(images.usable)
        too_few, too_many = [counted(lacking, "image")] * (lacking > 0), [counted(-lacking, "image")] * (lacking < 0)
    out = [Finding("missing", ", ".join(too_few))] if too_few else []
    out += [Finding("surplus", ", ".join(too_many))] if too_many else []
    groups = len({record.group for record in images.usable} - {None})
    if known.groups is not None and groups != known.groups:
        kind = "missing" if groups < known.groups else "surplus"
        difference = abs(known.groups - groups)
        said = counted(difference, "lesion or patient", "lesions or patients")
        out.append(Finding(kind, f"{said}: {groups:,} of {known.groups:,} are here"))
    if unlabelled := [record.path.name for record in images.usable if record.labels is None]:
        out.append(Finding("surplus", f"images without a label, {_first_names(unlabelled)}"))
    return out


def _compare_ids(images: RawImages, known: Published) -> list[Finding]:
    out: list[Finding] = []
    ids = {str(record.key) for record in images.usable}
    if isinstance(known.ids, frozenset):
        if missing := known.ids - ids:
            out.append(Finding("missing", f"ids, {_first_names(missing)}"))
        if surplus := ids - known.ids:
            out.append(Finding("surplus", f"ids, {_first_names(surplus)}"))
    elif known.ids is not None:
        pattern = re.compile(known.ids)
        if differing := [key for key in ids if not pattern.fullmatch(key)]:
            out.append(Finding("differing", f"ids that do not match {known.ids}, {_first_names(differing)}"))
    if images.absent:
        out.append(Finding("missing", f"images that a table lists, {_first_names(images.absent)}"))
    if images.unusable:
        out.append(Finding("differing", f"images that cannot be used, {_first_names(images.unusable)}"))
    return out


def _compare_headers(images: RawImages, known: Published) -> list[Finding]:
    """Compare sizes and modes.

    Published ranges are summaries: some images outside them are a note, most images outside them are a difference.
    """
    out: list[Finding] = []
    total = len(images.usable)
    constant = known.smallest == known.largest
    span = _pixels(known.smallest) if constant else f"{_pixels(known.smallest)} to {_pixels(known.largest)}"
    sizes = Counter({_pixels(size): n for size, n in images.sizes.items() if not _is_within(size, known)})
    modes = Counter({mode: n for mode, n in images.modes.items() if mode not in known.modes})
    for what, others, strict in ((f"{span} pixels", sizes, constant), (" or ".join(known.modes), modes, False)):
        if count := others.total():
            kind = "differing" if strict or 2 * count > total else "note"
            common = ", ".join(f"{n:,} are {name}" for name, n in others.most_common(3))
            out.append(Finding(kind, f"{count:,} of {total:,} images are not {what}: {common}"))
    return out


def _is_within(size: tuple[int, int], known: Published) -> bool:
    """Whether an image's sides are within the published ones, whatever its orientation."""
    return all(low <= side <= high for low, side, high in zip(known.smallest, sorted(size), known.largest, strict=True))


def _pixels(size: tuple[int, int]) -> str:
    return f"{size[0]} × {size[1]}"


def _first_names(names: Iterable[str]) -> str:
    """How many names there are and the first of them: `7: a, b, c, d, e and 2 more`."""
    every = sorted(map(visible, names))
    rest = f" and {len(every) - NAMED:,} more" if len(every) > NAMED else ""
    return f"{len(every):,}: " + ", ".join(every[:NAMED]) + rest
