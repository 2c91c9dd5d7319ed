"""Compare a raw folder with what is published of its dataset.

It reads listings and image headers, and changes nothing.

python -m pipeline.verify isic --raw DIR

Exit code 0: it is as published; 1: something is missing, differs or is too much.
"""

from __future__ import annotations

import argparse
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.core.console import progress, run_command, table
from pipeline.data.datasets import DATASETS

if TYPE_CHECKING:
    from pipeline.data.records import Listing, Published, Record

NAMED = 5


def parser() -> argparse.ArgumentParser:
    out = argparse.ArgumentParser(prog="python -m pipeline.verify", description=__doc__, allow_abbrev=False)
    out.formatter_class = argparse.RawDescriptionHelpFormatter
    out.add_argument("name", help="isic, brain_mri, dermofit or autoimmune")
    out.add_argument("--raw", type=Path, required=True, help="the folder that holds the raw files")
    return out


@dataclass
class Found:
    """What lies in a raw folder."""

    good: list[Record] = field(default_factory=list)
    absent: list[str] = field(default_factory=list)
    """Names of images that a table lists and that are not there."""
    broken: list[str] = field(default_factory=list)
    """Images that cannot be used, each with its reason."""
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    modes: Counter[str] = field(default_factory=Counter)


def main() -> int:
    args = parser().parse_args()
    from pipeline.data.records import MARK

    dataset = DATASETS.find(args.name).DATASET
    if dataset.published is None:
        raise ValueError(f"nothing is published of {args.name!r} to compare with")
    dataset.need(args.raw)
    try:
        listing = dataset.listing(args.raw)
    except ValueError as error:
        print(f"missing    {error}")
        return 1
    found = look(listing)
    known = dataset.published
    print(f"{dataset.name} in {args.raw}, compared with {known.source}\n")
    print(count_table(found, listing, known))
    findings = compare(found, known)
    if (args.raw / MARK).exists():
        findings.append(("differing", "this folder holds a stand-in: drawn images, not the dataset"))
    print(f"\n{len(found.good):,} of {known.total:,} images")
    for kind, text in findings:
        print(f"{kind:<10} {text}")
    differs = any(kind != "note" for kind, _ in findings)
    print(f"\n{dataset.obtain}" if differs else "\nit is as published")
    return 1 if differs else 0


def look(listing: Listing) -> Found:
    """Read the headers of all images that `listing` names."""
    from PIL import Image

    out = Found()
    for record in progress(listing.records, total=len(listing.records), what="looking"):
        name = record.path.name
        if not record.path.is_file():
            out.absent.append(name)
        elif record.problem:
            out.broken.append(f"{name} ({record.problem})")
        else:
            try:
                with Image.open(record.path) as image:
                    size, mode = image.size, image.mode
            except Exception as error:  # whatever a header holds, the others are looked at
                out.broken.append(f"{name} (cannot be read: {type(error).__name__})")
                continue
            out.good.append(record)
            out.sizes[size] += 1
            out.modes[mode] += 1
    return out


def counts_of(found: Found, known: Published) -> Counter[tuple[str, str]]:
    """Images by part and class."""
    out: Counter[tuple[str, str]] = Counter()
    for record in found.good:
        part = record.split if record.split in known.counts else "all"
        out.update((str(part), label) for label in record.labels or ())
    return out


def count_table(found: Found, listing: Listing, known: Published) -> str:
    here = counts_of(found, known)
    rows: list[list[object]] = [
        [part, label, here[part, label], count]
        for part, classes in known.counts.items()
        for label, count in classes.items()
    ]
    rows = rows or [["all", label, here["all", label], "–"] for label in listing.classes]
    return table(rows, header=("part", "class", "here", "known"))


# Differences, each with its kind: missing, differing, surplus; a note is none.
Findings = list[tuple[str, str]]


def compare(found: Found, known: Published) -> Findings:
    """What differs between a raw folder and what is published of it."""
    return [*compare_counts(found, known), *compare_ids(found, known), *compare_headers(found, known)]


def compare_counts(found: Found, known: Published) -> Findings:
    here = counts_of(found, known)
    names = {
        (part, label): (label if part == "all" else f"{label} ({part})", count)
        for part, classes in known.counts.items()
        for label, count in classes.items()
    }
    too_few = [f"{count - here[key]:,} of {name}" for key, (name, count) in names.items() if here[key] < count]
    too_many = [f"{here[key] - count:,} of {name}" for key, (name, count) in names.items() if here[key] > count]
    if not names:
        less = known.total - len(found.good)
        too_few, too_many = [f"{less:,} images"] * (less > 0), [f"{-less:,} images"] * (less < 0)
    out = [("missing", ", ".join(too_few))] if too_few else []
    out += [("surplus", ", ".join(too_many))] if too_many else []
    groups = len({record.group for record in found.good} - {None})
    if known.groups is not None and groups != known.groups:
        kind = "missing" if groups < known.groups else "surplus"
        out.append(
            (kind, f"{abs(known.groups - groups):,} lesions or patients: {groups:,} of {known.groups:,} are here")
        )
    if unlabelled := [record.path.name for record in found.good if record.labels is None]:
        out.append(("surplus", f"images without a label, {some(unlabelled)}"))
    return out


def compare_ids(found: Found, known: Published) -> Findings:
    out: Findings = []
    ids = {str(record.key) for record in found.good}
    if isinstance(known.ids, frozenset):
        if gone := known.ids - ids:
            out.append(("missing", f"ids, {some(gone)}"))
        if new := ids - known.ids:
            out.append(("surplus", f"ids, {some(new)}"))
    elif known.ids is not None:
        pattern = re.compile(known.ids)
        if odd := [key for key in ids if not pattern.fullmatch(key)]:
            out.append(("differing", f"ids that are not like {known.ids}, {some(odd)}"))
    if found.absent:
        out.append(("missing", f"images that a table lists, {some(found.absent)}"))
    if found.broken:
        out.append(("differing", f"images that cannot be used, {some(found.broken)}"))
    return out


def compare_headers(found: Found, known: Published) -> Findings:
    """Sizes and modes. Published ranges are summaries: some images outside them are a note, most are a difference."""
    out: Findings = []
    total = len(found.good)
    constant = known.smallest == known.largest
    span = shown(known.smallest) if constant else f"{shown(known.smallest)} to {shown(known.largest)}"
    sizes = Counter({shown(size): n for size, n in found.sizes.items() if not is_within(size, known)})
    modes = Counter({mode: n for mode, n in found.modes.items() if mode not in known.modes})
    for what, others, strict in ((f"{span} pixels", sizes, constant), (" or ".join(known.modes), modes, False)):
        if count := others.total():
            kind = "differing" if strict or 2 * count > total else "note"
            common = ", ".join(f"{n:,} are {name}" for name, n in others.most_common(3))
            out.append((kind, f"{count:,} of {total:,} images are not {what}: {common}"))
    return out


def is_within(size: tuple[int, int], known: Published) -> bool:
    """Whether an image's sides, the shorter with the shorter, lie within the published ones."""
    return all(low <= side <= high for low, side, high in zip(known.smallest, sorted(size), known.largest, strict=True))


def shown(size: tuple[int, int]) -> str:
    return f"{size[0]} × {size[1]}"


def some(names: Iterable[str]) -> str:
    """The first few names and how many there are."""
    every = sorted(names)
    rest = f" and {len(every) - NAMED:,} more" if len(every) > NAMED else ""
    return f"{len(every):,}: " + ", ".join(every[:NAMED]) + rest


if __name__ == "__main__":
    run_command(main)
