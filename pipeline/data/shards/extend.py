"""Datasets that grow: a plan of shards that hold those of another folder and the new images of a raw folder.

Stored images keep their tars, splits and places. Test and validation never grow, so that results over time can be
compared: a new image goes to training, or is left out if its patient, lesion or twin is held out. That depends on
nothing but the image and the parts held out, so adding images one by one or all at once gives the same dataset.
(docs/decisions/0030-datasets-that-grow.md)
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.core.console import counted, visible
from pipeline.data import images, twins
from pipeline.data.labels import listed
from pipeline.data.records import Dataset, Listing, PassedOver, Record
from pipeline.data.shards import duplicates, quarantine
from pipeline.data.shards.index import Shards
from pipeline.data.shards.parent import Parent, parent_of, read_sources
from pipeline.data.shards.plan import Sample, ShardPlan, groups_of, keys_of, source_hash
from pipeline.data.shards.raw import Progress, read_files
from pipeline.data.shards.transcode import ShardSettings

HELD_OUT = ("test", "val")
AFRESH = "shard all images without --extend"

Read = tuple[Record, str]
"""An image of the raw folder and its file's SHA-256."""


def settings_of(shards: Shards) -> ShardSettings:
    """How the images of shards are stored; raises `ValueError` if this version knows no such setting."""
    try:
        return ShardSettings(**shards.manifest["settings"])
    except TypeError as error:
        raise ValueError(f"{shards.folder} is of another version ({error}); {AFRESH}") from error


def extended_plan(
    dataset: Dataset, root: Path, shards: Shards, *, workers: int, progress: Progress, keep_leaks: bool = False
) -> ShardPlan:
    """Read all files under `root` and plan shards that hold `shards` and the images that those lack; writes nothing.

    `root` may lack files that are stored. With `keep_leaks` twins of images that are held out are added too. Raises
    `ValueError` if the files do not go with the shards: another name, task or class.
    """
    settings = settings_of(shards)
    if dataset.name != shards.name:
        raise ValueError(f"{shards.folder} holds {shards.name}, not {dataset.name}; give its name")
    listing, readable, _, quarantined = read_files(dataset, root, workers=workers, progress=progress)
    _check_classes(listing, shards)
    known = read_sources(shards)
    keys, without_key = keys_of(readable, root, keep_names=settings.keep_names, stored=known or {})
    usable = [(record, checksum) for record, checksum in readable if record.path in keys]
    if known is None:
        known = _known_by_id(shards, {keys[record.path]: checksum for record, checksum in usable})
    stored = [record for record, checksum in usable if known.get(keys[record.path]) == checksum]
    new = [(record, checksum) for record, checksum in usable if keys[record.path] not in known]
    for record, checksum in usable:
        if known.get(keys[record.path], checksum) != checksum:
            reason = f"is not the file that was sharded under its id; {AFRESH}"
            quarantined.append(quarantine.entry(record.path, root, reason))
    parent = parent_of(shards, known, matched=len(stored))
    rows = {row["key"]: row for row in parent.rows}
    pairs = [(record, rows[keys[record.path]]) for record in stored]
    groups = _Groups(pairs, parent.rows)
    leaks = _leaks(new, groups, shards, settings, workers=workers, progress=progress, keep_leaks=keep_leaks)
    names = groups.of_new(new, keep_names=settings.keep_names)
    samples = [
        Sample(key=keys[record.path], record=record, group=group, split="train", checksum=checksum)
        for i, ((record, checksum), group) in enumerate(zip(new, names, strict=True))
        if i not in leaks
    ]
    every = known | {sample.key: sample.checksum for sample in samples}
    return ShardPlan(
        dataset=dataset,
        listing=_listing(listing, shards, [(new[i][0], kind) for i, kind in leaks.items()], _notes(parent, pairs)),
        settings=settings,
        root=root,
        samples=sorted(samples, key=lambda sample: sample.key),
        quarantined=quarantined + without_key,
        fingerprint=_fingerprint(parent, samples),
        source_sha256=source_hash(sorted(every.items())),
        parent=parent,
    )


def _known_by_id(shards: Shards, found: Mapping[str, str]) -> dict[str, str]:
    """The checksums of the raw files of shards that do not say them, from those that were found, by key."""
    keys = shards.rows["key"].array.to_pylist()
    if lacking := [key for key in keys if key not in found]:
        raise ValueError(
            f"{shards.folder} is of an earlier version, which did not store the checksums of raw files, and "
            f"{counted(len(lacking), 'image')} of it are not in the raw folder ({listed(lacking)}); give --raw the "
            f"folder that has all of them and the new ones, or {AFRESH}"
        )
    return {key: found[key] for key in keys}


def _check_classes(listing: Listing, shards: Shards) -> None:
    """Raise `ValueError` if new images have a class, or a number of classes, that stored ones cannot have."""
    labels = {name for record in listing.records for name in record.labels or () if not record.problem}
    if other := sorted(labels - set(shards.classes)):
        names = listed(visible(name) for name in other)
        raise ValueError(
            f"{shards.folder} has no class {names}; its classes are {listed(map(visible, shards.classes))}; correct "
            f"the labels, or {AFRESH}: other classes make another task"
        )
    if listing.task == "multi-label" != shards.manifest["task"]:
        raise ValueError(
            f"{shards.folder} has one class an image, and images of the raw folder have several or none; correct the "
            f"labels, or {AFRESH}"
        )


class _Groups:
    """What is known of lesions and patients: which groups of the shards each group of the raw folder is."""

    def __init__(self, stored: Sequence[tuple[Record, Mapping[str, Any]]], rows: Sequence[Mapping[str, Any]]) -> None:
        self.held_out = {
            row["group"]: part for part in reversed(HELD_OUT) for row in rows if row["split"] == part and row["group"]
        }
        self.every = {row["group"] for row in rows}
        self.of: dict[str, set[str]] = {}
        for record, row in stored:
            if record.group is not None and row["group"] is not None:
                self.of.setdefault(record.group, set()).add(row["group"])

    def known(self, record: Record) -> set[str]:
        """The groups of the shards that an image's group is."""
        if record.group is None:
            return set()
        return self.of.get(record.group, set()) | ({record.group} & self.every)

    def part(self, record: Record) -> str | None:
        """Test or val if an image of its group is there."""
        parts = {self.held_out.get(group) for group in self.known(record)}
        return next((part for part in HELD_OUT if part in parts), None)

    def of_new(self, new: list[Read], *, keep_names: bool) -> list[str | None]:
        """The group of each new image: the one that the shards have, else a new one."""
        own = groups_of(new, keep_names=keep_names)
        return [min(self.known(record), default=group) for (record, _), group in zip(new, own, strict=True)]


def _leaks(
    new: list[Read],
    groups: _Groups,
    shards: Shards,
    settings: ShardSettings,
    *,
    workers: int,
    progress: Progress,
    keep_leaks: bool,
) -> dict[int, str]:
    """The new images that are left out, by their numbers, and why, in words that many share."""
    out = {
        i: f"new images that are given to {record.split}, which stays as it is"
        for i, (record, _) in enumerate(new)
        if record.split in HELD_OUT
    }
    if settings.split != "grouped":
        return out
    for i, (record, _) in enumerate(new):
        if i not in out and (part := groups.part(record)):
            out[i] = f"new images of a lesion or patient in {part}"
    rest = [i for i in range(len(new)) if i not in out]
    if rest and not keep_leaks:
        parts = _parts_of_twins([new[i][0].path for i in rest], shards, settings, workers=workers, progress=progress)
        out |= {i: f"new images with a twin in {part}" for i, part in zip(rest, parts, strict=True) if part}
    return out


def _parts_of_twins(
    paths: Sequence[Path], shards: Shards, settings: ShardSettings, *, workers: int, progress: Progress
) -> list[str | None]:
    """For each raw file test or val, if a stored image there is its twin; as where a whole dataset is split."""
    held_out = {part: shards.of_split(part) for part in HELD_OUT}
    rows = [row for part in HELD_OUT for row in held_out[part]]
    raw, readable = duplicates.raw_thumbnails(paths, settings, workers=workers, progress=progress)
    thumbnails = np.concatenate([duplicates.stored_thumbnails(shards, rows, progress), raw[readable]])
    found = twins.find_twins(thumbnails, twins.ALIKE - duplicates.MARGIN)
    out: list[str | None] = [None] * len(paths)
    for part in reversed(HELD_OUT):
        chosen = np.zeros(len(thumbnails), bool)
        start = 0 if part == HELD_OUT[0] else len(held_out[HELD_OUT[0]])
        chosen[start : start + len(held_out[part])] = True
        for path, twin in zip(np.flatnonzero(readable), found.twin_in(chosen)[len(rows) :], strict=True):
            out[path] = part if twin >= 0 else out[path]
    return out


def _notes(parent: Parent, stored: Sequence[tuple[Record, Mapping[str, Any]]]) -> list[str]:
    """What a person must know of the images that are stored already."""
    out = [f"extends {parent.folder.name}: its {counted(len(parent.rows), 'image')} stay as they are"]
    if lacking := len(parent.rows) - parent.matched:
        out.append(f"{counted(lacking, 'image')} of it {'is' if lacking == 1 else 'are'} not in the raw folder")
    differing = sum(record.labels != _labels(row) for record, row in stored)
    if differing:
        said = counted(differing, "stored image has", "stored images have")
        out.append(f"{said} other labels in the raw folder now; the stored ones stay: {AFRESH} to change them")
    return out


def _labels(row: Mapping[str, Any]) -> tuple[str, ...] | None:
    return None if row["labels"] is None else tuple(row["labels"])


def _listing(listing: Listing, shards: Shards, leaks: Sequence[tuple[Record, str]], notes: Sequence[str]) -> Listing:
    """The listing with the classes and the task of the shards, and without what is left out."""
    gone = {record.path for record, _ in leaks}
    return dataclasses.replace(
        listing,
        classes=shards.classes,
        task=shards.manifest["task"],
        records=[record for record in listing.records if record.path not in gone],
        passed_over=(*listing.passed_over, *(PassedOver(record.path, kind) for record, kind in leaks)),
        notes=(*notes, *listing.notes),
    )


def _fingerprint(parent: Parent, samples: Sequence[Sample]) -> str:
    """16 digits of a hash of the base's fingerprint and of all that was ever added to it, in whatever parts.

    A group counts by its image of the lowest key: its name depends on the images with which it came.
    """
    if not samples:
        return parent.fingerprint
    added = [
        (row["key"], checksum, row["labels"], row["group"])
        for row, checksum in zip(parent.rows, parent.checksums, strict=True)
    ][parent.base_images :]
    added += [(sample.key, sample.checksum, sample.record.labels, sample.group) for sample in samples]
    lowest: dict[str | None, str] = {None: ""}
    members = [(row["group"], row["key"]) for row in parent.rows] + [(sample.group, sample.key) for sample in samples]
    for group, key in members:
        lowest[group] = min(lowest.get(group, key), key)
    digest = hashlib.sha256(json.dumps(["extends", parent.base, images.REVISION]).encode())
    for key, checksum, labels, group in sorted(added):
        digest.update(json.dumps([key, checksum, labels, lowest[group]]).encode())
    return digest.hexdigest()[:16]
