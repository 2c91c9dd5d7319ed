"""Datasets that grow: a plan of shards that hold those of another folder and the new images of a raw folder.

Stored images keep their tars, splits and places. Test and validation never grow, so that results over time can be
compared: a new image goes to training, or is left out if its patient, lesion or twin is held out. That depends on
nothing but the image and the parts held out, so adding images one by one or all at once gives the same dataset.
(docs/decisions/0030-datasets-that-grow.md)
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Container, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipeline.core.console import counted, visible
from pipeline.data import images
from pipeline.data.formats.reading import Secret
from pipeline.data.labels import listed
from pipeline.data.records import Dataset, Listing, PassedOver, Record
from pipeline.data.shards import held_out
from pipeline.data.shards.index import Shards
from pipeline.data.shards.keys import keys_of
from pipeline.data.shards.parent import Parent, parent_of, read_sources
from pipeline.data.shards.plan import (
    Sample,
    ShardPlan,
    as_found,
    entries_of,
    in_order,
    revisions_of,
    sample_of,
    source_hash,
)
from pipeline.data.shards.quarantine import Names
from pipeline.data.shards.raw import Progress, RawFiles, RawImage, new_secret, read_listing
from pipeline.data.shards.transcode import ShardSettings

AFRESH = "shard all images without --extend"


def settings_of(shards: Shards) -> ShardSettings:
    """How the images of shards are stored; raises `ValueError` if this version knows no such setting."""
    try:
        return ShardSettings.of_json(shards.manifest["settings"])
    except TypeError as error:
        raise ValueError(f"{shards.folder} is of another version ({error}); {AFRESH}") from error


def extended_plan(
    dataset: Dataset,
    root: Path,
    shards: Shards,
    *,
    workers: int,
    progress: Progress,
    keep_leaks: bool = False,
    id_key: bytes | None = None,
) -> ShardPlan:
    """Read all files under `root` and plan shards that hold `shards` and the images that those lack; writes nothing.

    `root` may lack files that are stored. With `keep_leaks` twins of images that are held out are added too. Raises
    `ValueError` if the files do not go with the shards: another name, task, class or key of ids.
    """
    settings = settings_of(shards)
    if dataset.name != shards.name:
        raise ValueError(f"{shards.folder} holds {shards.name}, not {dataset.name}; give its name")
    secret = new_secret(id_key)
    _check_key(secret, shards)
    listing, raw = read_listing(dataset, root, settings.reading, secret, workers=workers, progress=progress)
    _check_classes(listing, raw, shards)
    known = read_sources(shards)
    keys = keys_of(raw, root, keep_names=settings.keep_names, stored=known or {})
    if known is None:
        checksums = [image.source.checksum for image in raw.images]
        known = _known_by_id(shards, dict(zip(keys, checksums, strict=True)))
    stored, new = _apart(raw, keys, known)
    parent = parent_of(shards, known, matched=len(stored))
    rows = {row["key"]: row for row in parent.rows}
    pairs = [(image.record, rows[key]) for key, image in stored.items()]
    added = list(new.values())
    _check_patients(added, parent, stored)
    groups = held_out.Groups(pairs, parent.rows)
    leaks = held_out.leaks(added, groups, shards, settings, workers, progress, keep_leaks=keep_leaks)
    names = zip(new, added, groups.of_new(added, keep_names=settings.keep_names), strict=True)
    samples = [sample_of(image, key, group, "train") for i, (key, image, group) in enumerate(names) if i not in leaks]
    left_out = [(added[i].record, PassedOver(added[i].record.path, kind)) for i, kind in leaks.items()]
    quarantined, real_names = entries_of(raw, Names(root, raw.holds_dicom))
    every = known | {sample.key: sample.checksum for sample in samples}
    return ShardPlan(
        dataset=dataset,
        listing=_listing(as_found(listing, raw, left_out), shards, _notes(parent, pairs)),
        settings=settings,
        root=root,
        samples=in_order(sorted(samples, key=lambda sample: sample.key)),
        quarantined=quarantined,
        fingerprint=_fingerprint(parent, samples),
        source_sha256=source_hash(sorted(every.items())),
        parent=parent,
        hides_names=raw.holds_dicom,
        real_names=real_names,
        id_key=secret.known_by,
    )


def _apart(
    raw: RawFiles, keys: Sequence[str], known: Mapping[str, str]
) -> tuple[dict[str, RawImage], dict[str, RawImage]]:
    """The images that are stored and those that are new, by key; other files under ids of stored ones are refused."""
    stored, new = {}, {}
    for key, image in zip(keys, raw.images, strict=True):
        if key not in known:
            new[key] = image
        elif known[key] == image.source.checksum:
            stored[key] = image
        else:
            problem = f"is not the file that was sharded under its id; {AFRESH}"
            raw.refused.append(replace(image.record, problem=problem))
    raw.images = [*stored.values(), *new.values()]
    return stored, new


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


def _check_key(secret: Secret, shards: Shards) -> None:
    """Raise `ValueError` if the ids in headers were hashed with another key: no image and no patient would be known."""
    known = shards.manifest.get("id_key")
    if "id_key" not in shards.manifest or known == secret.known_by:
        return
    if known is None:
        raise ValueError(f"{shards.folder} was sharded without --id-key; omit it, or {AFRESH}")
    given = "another key was given" if secret.is_given else "no key was given"
    raise ValueError(f"{shards.folder} was sharded with --id-key, and {given}; give the same key, or {AFRESH}")


def _check_patients(new: Sequence[RawImage], parent: Parent, stored: Container[str]) -> None:
    """Raise `ValueError` if new images may show patients of stored ones and nobody has the key that would tell."""
    if parent.manifest.get("id_key", "") is not None or not any(image.found and image.found.group for image in new):
        return
    lacking = [row["key"] for row in parent.rows if row["group"] is not None and row["key"] not in stored]
    if lacking:
        raise ValueError(
            f"{parent.folder} was sharded without --id-key, so its patients are known by its files alone, and "
            f"{counted(len(lacking), 'image')} of it {'is' if len(lacking) == 1 else 'are'} not in the raw folder "
            f"({listed(lacking)}); give --raw the folder that has all of them and the new ones, or {AFRESH} and with "
            "--id-key, which lets new images come alone"
        )


def _check_classes(listing: Listing, raw: RawFiles, shards: Shards) -> None:
    """Raise `ValueError` if new images have a class, or a number of classes, that stored ones cannot have."""
    labels = {name for image in raw.images for name in image.record.labels or ()}
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


def _listing(listing: Listing, shards: Shards, notes: Sequence[str]) -> Listing:
    """The listing with the classes and the task of the shards."""
    return replace(listing, classes=shards.classes, task=shards.manifest["task"], notes=(*notes, *listing.notes))


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
    for kind, revision in sorted({**parent.manifest.get("read_as", {}), **revisions_of(samples)}.items()):
        digest.update(f"read as {kind}, revision {revision}".encode())
    for key, checksum, labels, group in sorted(added):
        digest.update(json.dumps([key, checksum, labels, lowest[group]]).encode())
    return digest.hexdigest()[:16]
