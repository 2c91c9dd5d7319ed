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
from pipeline.data.shards.headers import read_listing, series_of, with_ends
from pipeline.data.shards.index import Shards
from pipeline.data.shards.keys import is_of_header, keeps_group, keys_of
from pipeline.data.shards.parent import Origin, Parent, parent_of, read_sources
from pipeline.data.shards.plan import (
    Sample,
    ShardPlan,
    as_found,
    plan_with,
    revisions_of,
    sample_of,
)
from pipeline.data.shards.raw import Progress, RawFiles, RawImage, group_of_file, new_secret
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
    origins = read_sources(shards)
    checksums = {key: origin.checksum for key, origin in (origins or {}).items()}
    keys = keys_of(raw, root, keep_names=settings.keep_names, stored=checksums)
    if origins is None:
        origins = _known_by_id(shards, dict(zip(keys, raw.images, strict=True)))
    stored, new = _apart(raw, keys, origins)
    parent = parent_of(shards, origins, matched=len(stored))
    rows = {row["key"]: row for row in parent.rows}
    pairs = [(image.record, rows[key]) for key, image in stored.items()]
    added = with_ends(list(new.values()), settings.reading, _known_ends(stored, origins))
    _check_patients(added, raw, parent, stored, keep_names=settings.keep_names)
    groups = held_out.Groups(pairs, parent.rows)
    leaks = held_out.leaks(added, groups, shards, settings, workers, progress, keep_leaks=keep_leaks)
    names = zip(new, added, groups.of_new(added, keep_names=settings.keep_names), strict=True)
    samples = [sample_of(image, key, group, "train") for i, (key, image, group) in enumerate(names) if i not in leaks]
    left_out = [(added[i].record, PassedOver(added[i].record.path, kind)) for i, kind in leaks.items()]
    return plan_with(
        samples,
        raw,
        dataset=dataset,
        listing=_listing(as_found(listing, raw, left_out), shards, _notes(parent, pairs)),
        settings=settings,
        root=root,
        fingerprint=_fingerprint(parent, samples),
        parent=parent,
        id_key=secret.known_by,
    )


def _apart(
    raw: RawFiles, keys: Sequence[str], known: Mapping[str, Origin]
) -> tuple[dict[str, RawImage], dict[str, RawImage]]:
    """The images that are stored and those that are new, by key; other files under ids of stored ones are refused."""
    stored, new = {}, {}
    for key, image in zip(keys, raw.images, strict=True):
        if key not in known:
            new[key] = image
        elif known[key].checksum == image.source.checksum:
            stored[key] = image
        else:
            problem = f"is not the file that was sharded under its id; {AFRESH}"
            raw.refused.append(replace(image.record, problem=problem))
    raw.images = [*stored.values(), *new.values()]
    return stored, new


def _known_by_id(shards: Shards, found: Mapping[str, RawImage]) -> dict[str, Origin]:
    """The origins in raw files of shards that do not say them, from those that were found, by key."""
    keys = shards.rows["key"].array.to_pylist()
    if lacking := [key for key in keys if key not in found]:
        raise ValueError(
            f"{shards.folder} is of an earlier version, which did not store the checksums of raw files, and "
            f"{counted(len(lacking), 'image')} of it are not in the raw folder ({listed(lacking)}); give --raw the "
            f"folder that has all of them and the new ones, or {AFRESH}"
        )
    return {key: Origin(found[key].source.checksum) for key in keys}


def _known_ends(stored: Mapping[str, RawImage], origins: Mapping[str, Origin]) -> dict[str, tuple[float, float]]:
    """Black and white of the series that are stored: a new slice must not look different from its neighbours."""
    out = {origin.series: origin.ends for origin in origins.values() if origin.series and origin.ends}
    for key, image in stored.items():
        if ends := origins[key].ends:
            out[series_of(image)] = ends
    return out


def _check_key(secret: Secret, shards: Shards) -> None:
    """Raise `ValueError` if the ids in headers were hashed with another key: no image and no patient would be known."""
    known = shards.manifest.get("id_key")
    if "id_key" not in shards.manifest or known == secret.known_by:
        return
    if known is None:
        raise ValueError(f"{shards.folder} was sharded without --id-key; omit it, or {AFRESH}")
    given = "another key was given" if secret.is_given else "no key was given"
    raise ValueError(f"{shards.folder} was sharded with --id-key, and {given}; give the same key, or {AFRESH}")


def _check_patients(
    new: Sequence[RawImage], raw: RawFiles, parent: Parent, stored: Container[str], *, keep_names: bool
) -> None:
    """Raise `ValueError` if new images may show patients of stored ones that are not in the raw folder to tell."""
    patients = {image.found.ids.get("patient") for image in raw.images if image.found}

    def is_known(image: RawImage) -> bool:
        group = image.record.group
        if group is None or group == group_of_file(image.source.checksum):
            return True
        return keeps_group(image, keep_names=keep_names) and (not is_of_header(image) or group in patients)

    lacking = [row["key"] for row in parent.rows if row["group"] is not None and row["key"] not in stored]
    if not lacking or all(map(is_known, new)):
        return
    id_key = parent.manifest.get("id_key", "")
    why = "was sharded without --id-key" if id_key is None else "stores no names of patients or lesions"
    advice = " and with --id-key, which lets new images come alone" if id_key is None else ""
    if id_key:
        why = "is to grow by images whose headers name no patient"
    raise ValueError(
        f"{parent.folder} {why}, so its patients are known by its files alone, and "
        f"{counted(len(lacking), 'image')} of it {'is' if len(lacking) == 1 else 'are'} not in the raw folder "
        f"({listed(lacking)}); give --raw the folder that has all of them and the new ones, or {AFRESH}{advice}"
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
        (row["key"], parent.origins[row["key"]], row["labels"], row["group"])
        for row in parent.rows[parent.base_images :]
    ]
    added += [(sample.key, sample.origin, sample.record.labels, sample.group) for sample in samples]
    lowest: dict[str | None, str] = {None: ""}
    members = [(row["group"], row["key"]) for row in parent.rows] + [(sample.group, sample.key) for sample in samples]
    for group, key in members:
        lowest[group] = min(lowest.get(group, key), key)
    digest = hashlib.sha256(json.dumps(["extends", parent.base, images.REVISION]).encode())
    for kind, revision in sorted({**parent.manifest.get("read_as", {}), **revisions_of(samples)}.items()):
        digest.update(f"read as {kind}, revision {revision}".encode())
    for key, origin, labels, group in sorted(added, key=lambda row: row[0]):
        row = [key, origin.checksum, labels, lowest[group], *(origin.ends or ())]
        digest.update(json.dumps(row).encode())
    return digest.hexdigest()[:16]
