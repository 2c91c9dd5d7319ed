"""Images of a dataset that show the same: kept in one split, left out where they leak, counted and drawn."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from pipeline.core import memory
from pipeline.core.console import counted
from pipeline.data import images, twins
from pipeline.data.formats.files import Source
from pipeline.data.records import PassedOver, Record
from pipeline.data.shards.index import Shards
from pipeline.data.shards.read import TarReader, read_pixels
from pipeline.data.shards.transcode import ShardSettings, raw_thumbnail
from pipeline.data.sketches import SIDE
from pipeline.data.splits import Labels
from pipeline.data.twins import Pairs, Twins
from pipeline.data.workers import Workers

BELOW = 0.04  # pairs that are that much less alike are drawn with the twins
MARGIN = 0.01  # raw files that are that much less alike count too: storing an image changes it a little
BLOCK = 256  # images that are decoded at once
DRAWN = 12  # pairs on each side of the limit
CELL, GAP, TITLE, CAPTION = 128, 4, 20, 32  # of the sheet, in pixels
LEAST = 3  # cells wide, for the titles
NAMED = 100  # pairs with different labels that a manifest names

REVISION = 1
"""Raised when other images become twins: `--split grouped` may then split in another way."""


def find_raw_twins(sources: Sequence[Source], settings: ShardSettings, *, workers: int, progress: Any) -> Twins:
    """The twins among images of raw files, so many that their stored images have no others.

    A file that cannot be decoded has none; it is quarantined when it is written.
    """
    thumbnails, readable = raw_thumbnails(sources, settings, workers=workers, progress=progress)
    rows = np.flatnonzero(readable)
    found = twins.find_twins(thumbnails[rows], twins.ALIKE - MARGIN)
    first_of = np.arange(len(sources))
    first_of[rows] = rows[found.first_of]
    pairs = found.pairs
    return Twins(first_of, dataclasses.replace(pairs, first=rows[pairs.first], second=rows[pairs.second]))


def raw_thumbnails(
    sources: Sequence[Source], settings: ShardSettings, *, workers: int, progress: Any
) -> tuple[np.ndarray, np.ndarray]:
    """The thumbnails of raw images uint8 [n, SIDE, SIDE], and which of them can be decoded bool [n]."""
    thumbnails = np.zeros((len(sources), SIDE, SIDE), np.uint8)
    readable = np.ones(len(sources), bool)
    work = partial(raw_thumbnail, settings=settings, memory=memory.share_of_worker(workers))
    with Workers(workers) as pool:
        answers = pool.map(work, sources, together=lambda source: source.path)
        answers = progress(answers, total=len(sources), what="looking for twins")
        for row, answer in enumerate(answers):
            if isinstance(answer, images.BadImage):
                readable[row] = False
            else:
                thumbnails[row] = answer
    return thumbnails, readable


def units(groups: Sequence[str | None], found: Twins) -> list[str | None]:
    """What must stay in one split: twins, patients and lesions, joined where they share an image.

    None for an image that has neither a group nor a twin.
    """
    first: dict[str, int] = {}
    same_group = np.array([(first.setdefault(g, i), i) for i, g in enumerate(groups) if g], np.int64).reshape(-1, 2)
    one, other = found.first_of[same_group].T  # each image replaced by the first one that is equal to it
    ends = np.concatenate([found.pairs.first, one]), np.concatenate([found.pairs.second, other])
    every = Twins(found.first_of, Pairs(*ends, np.ones(len(ends[0])), np.zeros(len(ends[0]), np.int64))).groups()
    members = np.bincount(every, minlength=len(every))
    return [str(unit) if group or members[unit] > 1 else None for group, unit in zip(groups, every, strict=True)]


def joined(groups: Sequence[str | None], units: Sequence[str | None]) -> list[str]:
    """A note of how many patients or lesions are in units of several, which near duplicates join; empty for none."""
    members: dict[str | None, set[str]] = {}
    for group, unit in zip(groups, units, strict=True):
        if group is not None:
            members.setdefault(unit, set()).add(group)
    several = [len(each) for each in members.values() if len(each) > 1]
    if not several:
        return []
    return [
        f"near duplicates join {sum(several)} patients or lesions to {counted(len(several), 'unit')}, each of which is "
        f"in one part; the largest has {max(several)}"
    ]


def leaking(table: Sequence[str], found: Twins) -> dict[int, int]:
    """The training images with a twin in test or val, and the validation images with one in test, with that twin."""
    splits = np.array(table, dtype="U5")
    out: dict[int, int] = {}
    for split, held_out in (("train", ("test", "val")), ("val", ("test",))):
        for other in reversed(held_out):
            twin = found.twin_in(splits == other)
            out |= {int(i): int(twin[i]) for i in np.flatnonzero((splits == split) & (twin >= 0))}
    return out


def sharing(table: Sequence[str], groups: Sequence[str | None]) -> dict[int, str]:
    """The training and validation images whose patient or lesion is in a part that they must not know, which the
    curator put into several; with that part.

    A twin in a part says nothing of its patient's other images, as where a dataset grows (decision 30).
    """
    held_out = {part: {g for g, p in zip(groups, table, strict=True) if p == part and g} for part in ("test", "val")}
    unknown = {"train": ("test", "val"), "val": ("test",), "test": ()}
    out = {}
    for i, (group, part) in enumerate(zip(groups, table, strict=True)):
        if where := [other for other in unknown[part] if group in held_out[other]]:
            out[i] = where[0]
    return out


def left_out(
    records: Sequence[Record], table: Sequence[str], groups: Sequence[str | None], found: Twins
) -> dict[int, PassedOver]:
    """What a listing says of images that are left out because they leak, by their positions."""
    why = {i: f"images of a lesion or patient in {part}" for i, part in sharing(table, groups).items()}
    why |= {i: f"images with a twin in {table[twin]}" for i, twin in leaking(table, found).items()}
    return {i: PassedOver(records[i].path, f"{table[i]} {text}") for i, text in why.items()}


def stored_twins(shards: Shards, *, progress: Any) -> Twins:
    """The twins among stored images, and the pairs that are a little less alike."""
    thumbnails = stored_thumbnails(shards, range(len(shards.rows["key"])), progress)
    return twins.find_twins(thumbnails, twins.ALIKE - BELOW)


def stored_thumbnails(shards: Shards, rows: Sequence[int], progress: Any) -> np.ndarray:
    """uint8 [n, SIDE, SIDE]."""
    thumbnails = np.empty((len(rows), SIDE, SIDE), np.uint8)
    reader = TarReader(shards)
    starts = range(0, len(rows), BLOCK)
    for start in progress(starts, total=len(starts), what="looking for twins"):
        block = rows[start : start + BLOCK]
        pixels = np.empty((len(block), reader.side, reader.side, 3), np.uint8)
        reader.read(block, pixels)
        thumbnails[start : start + len(block)] = [twins.thumbnail(image) for image in pixels]
    return thumbnails


class TwinElsewhere(NamedTuple):
    """An image with a twin in other shards."""

    key: str
    kind: str
    """`exact`: the same stored bytes; `near`, or `mirrored`."""
    dataset: str
    """The other shards' name, the twin's split and key."""
    split: str
    twin: str


def twins_elsewhere(
    shards: Shards, others: Sequence[tuple[Shards, Sequence[str]]], *, progress: Any
) -> list[TwinElsewhere]:
    """The images that have a twin in some splits of other shards, in the order of the index."""
    own = range(len(shards.rows["key"]))
    thumbnails, names = [stored_thumbnails(shards, own, progress)], []
    by_checksum: dict[str, tuple[str, str, str]] = {}
    for other, splits in others:
        for split in splits:
            rows = other.of_split(split)
            thumbnails.append(stored_thumbnails(other, rows, progress))
            names += [(other.name, split, other.rows["key"][row]) for row in rows]
            checksums = (other.rows["sha256"][row] for row in rows)
            by_checksum |= dict(zip(checksums, names[len(names) - len(rows) :], strict=True))
    found = twins.find_twins(np.concatenate(thumbnails))
    chosen = np.arange(len(own) + len(names)) >= len(own)
    upright, every = (each.twin_in(chosen) for each in (found.alike(0, mirrored=False), found))
    out = []
    for row in own:
        if (name := by_checksum.get(shards.rows["sha256"][row])) is not None:
            out.append(TwinElsewhere(shards.rows["key"][row], "exact", *name))
        elif every[row] >= 0:
            kind, position = ("near", upright[row]) if upright[row] >= 0 else ("mirrored", every[row])
            out.append(TwinElsewhere(shards.rows["key"][row], kind, *names[position - len(own)]))
    return out


def summarise(
    found: Twins,
    *,
    keys: Sequence[str],
    contents: Sequence[str],
    table: Sequence[str],
    labels: Sequence[Labels],
) -> dict[str, Any]:
    """What manifests say of twins, under `twins`: images of val and test with a twin in train, twins of two labels.

    contents: equal for byte-identical images. An image counts once: as exact, else as near, else as mirrored.
    """
    splits = np.array(table, dtype="U5")
    trained = {content for content, split in zip(contents, table, strict=True) if split == "train"}
    exact = np.array([content in trained for content in contents], bool)
    upright = found.alike(twins.ALIKE, mirrored=False).twin_in(splits == "train") >= 0
    every = found.alike(twins.ALIKE).twin_in(splits == "train") >= 0
    out: dict[str, Any] = {"revision": REVISION}
    for split in ("val", "test"):
        of = splits == split
        near, mirrored = of & upright & ~exact, of & every & ~upright & ~exact
        counts = {"exact": of & exact, "near": near, "mirrored": mirrored}
        out[split] = {"images": int(of.sum()), **{name: int(which.sum()) for name, which in counts.items()}}
    differing = [sorted((keys[i], keys[j])) for i, j in _of_other_labels(found.alike(twins.ALIKE), labels)]
    return out | {"other_labels": len(differing), "with_other_labels": sorted(differing)[:NAMED]}


def _of_other_labels(found: Twins, labels: Sequence[Labels]) -> list[tuple[int, int]]:
    """Twins with different labels: of equal images each one that differs from the first labelled one, which stands for
    all of them among near twins. (An unlabelled first one must not hide that the others differ.)"""
    kinds: dict[frozenset[str] | None, int] = {None: -1}
    kind = np.array([kinds.setdefault(None if of is None else frozenset(of), len(kinds)) for of in labels], np.int64)
    labelled, shown = np.flatnonzero(kind >= 0), found.first_of.copy()
    shown[found.first_of[labelled[::-1]]] = labelled[::-1]
    pairs, equal = found.pairs, labelled[shown[found.first_of[labelled]] != labelled]
    one = np.concatenate([shown[pairs.first], shown[found.first_of[equal]]])
    other = np.concatenate([shown[pairs.second], equal])
    which = (kind[one] >= 0) & (kind[other] >= 0) & (kind[one] != kind[other])
    return list(zip(one[which].tolist(), other[which].tolist(), strict=True))


def draw_pairs(shards: Shards, found: Twins) -> bytes | None:
    """A PNG for a person to judge the limit by: the least alike twins above, pairs that are less alike below.

    The pairs below are spread over all that were found. None where there are neither.
    """
    from PIL import Image, ImageDraw

    pairs = found.pairs[np.argsort(found.pairs.likeness, kind="stable")]
    limit = int(np.searchsorted(pairs.likeness, twins.ALIKE))
    spread = np.unique(np.linspace(0, limit - 1, DRAWN).astype(int))[::-1] if limit else np.empty(0, int)
    above, below = pairs[limit : limit + DRAWN], pairs[spread]
    if not len(pairs):
        return None
    splits = shards.rows["split"]
    rows = {f"taken for twins, likeness {twins.ALIKE} and above": above, "not taken for twins": below}
    heights = [TITLE + (2 * CELL + CAPTION if len(row) else 0) for row in rows.values()]
    sheet = Image.new("RGB", (max(LEAST, len(above), len(below)) * (CELL + GAP), sum(heights)), "white")
    draw, top = ImageDraw.Draw(sheet), 0
    for height, (title, row) in zip(heights, rows.items(), strict=True):
        draw.text((GAP, top + GAP), title if len(row) else f"{title}: none", fill="black")
        for column, pair in enumerate(row):
            left = column * (CELL + GAP)
            members = [pair.first, pair.second]
            for number, pixels in enumerate(read_pixels(shards, members)):
                image = Image.fromarray(pixels).resize((CELL, CELL))
                sheet.paste(image, (left, top + TITLE + number * CELL))
            caption = f"{pair.likeness:.3f} {', '.join(splits[row] for row in members)}\n{pair.mirror}"
            draw.text((left + GAP, top + TITLE + 2 * CELL), caption, fill="black")
        top += height
    return images.encode(np.asarray(sheet), format="png", quality=None)
