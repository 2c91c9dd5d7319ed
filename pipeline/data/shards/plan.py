"""The first pass of sharding: a plan of the shard folder, made before any image is decoded.

It reads every file for its checksum. Keys, groups, splits, order, tars and the fingerprint that names the folder
follow from the listing, the checksums and the settings alone, so every machine makes the same plan.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

import numpy as np

from pipeline.core.seeds import derive
from pipeline.data import images, members, splits
from pipeline.data.records import Dataset, Listing, PassedOver, Record
from pipeline.data.shards import duplicates, quarantine
from pipeline.data.shards.parent import Parent
from pipeline.data.shards.quarantine import Entry
from pipeline.data.shards.raw import Progress, read_files
from pipeline.data.shards.transcode import ShardSettings
from pipeline.data.twins import Twins

TAR_BYTES = 256 << 20  # a tar stays below this even if its images do not compress at all
TAR_IMAGES = 2_000  # small enough that a killed job repeats little

AGAIN = "the same image under the same name again"
NONE_STORED: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, kw_only=True)
class Sample:
    """An image that is to be written."""

    key: str
    record: Record
    group: str | None
    split: str
    checksum: str
    """SHA-256 of the raw file."""


@dataclass(frozen=True, kw_only=True)
class ShardPlan:
    """What a shard folder is to hold: the samples in the order in which they are written."""

    dataset: Dataset
    listing: Listing
    settings: ShardSettings
    root: Path
    """The raw folder."""
    samples: list[Sample]
    quarantined: list[Entry]
    """The images that cannot be used, as far as listing and reading show."""
    fingerprint: str
    source_sha256: str
    """SHA-256 of the keys and checksums of all samples."""
    parent: Parent | None = None
    """The shards that are extended; `samples` are then those that it lacks."""

    @property
    def folder_name(self) -> str:
        return f"{self.dataset.name}-{self.settings.size}-{self.settings.split}-{self.fingerprint[:8]}"

    def tars(self) -> list[tuple[str, list[Sample]]]:
        """The name and the samples of every tar to write; the same plan always gives the same tars."""
        images_per_tar = max(1, min(TAR_IMAGES, TAR_BYTES // (self.settings.size**2 * 3 + 4096)))
        out = []
        for split in splits.SPLITS:
            members = [sample for sample in self.samples if sample.split == split]
            first = self.parent.tars_of(split) if self.parent else 0
            for number, start in enumerate(range(0, len(members), images_per_tar), first):
                out.append((f"{split}-{number:06d}", members[start : start + images_per_tar]))
        return out


def make_plan(
    dataset: Dataset,
    root: Path,
    settings: ShardSettings,
    *,
    workers: int,
    progress: Progress,
    keep_leaks: bool = False,
) -> ShardPlan:
    """Read all files under `root` and plan their shards; writes nothing.

    A grouped split keeps twins together, and leaves out what the curator put in two splits, unless `keep_leaks`.
    Raises `ValueError` if the dataset's files cannot be listed, and if none of its images is in train.
    """
    listing, readable, others, quarantined = read_files(dataset, root, workers=workers, progress=progress)
    keys, without_key = keys_of(readable, root, keep_names=settings.keep_names)
    usable = [(record, checksum) for record, checksum in readable if record.path in keys]
    if any(members.member_of(record.path) for record, _ in usable[:1]):  # their places in tars say nothing
        usable.sort(key=lambda pair: keys[pair[0].path])
    found = None
    if settings.split == "grouped":
        paths = [record.path for record, _ in usable]
        found = duplicates.find_raw_twins(paths, settings, workers=workers, progress=progress)
    samples, left_out = _samples(usable, keys, listing, settings, found, keep_leaks=keep_leaks)
    if left_out:
        gone = {passed.path for passed in left_out}
        kept = [record for record in listing.records if record.path not in gone]
        listing = replace(listing, records=kept, passed_over=(*listing.passed_over, *left_out))
    _check_train(dataset, samples)
    order = np.random.default_rng(derive("shard order", splits.SPLIT_SEED)).permutation(len(samples))
    return ShardPlan(
        dataset=dataset,
        listing=listing,
        settings=settings,
        root=root,
        samples=[samples[i] for i in order],
        quarantined=quarantined + without_key,
        fingerprint=_fingerprint(dataset, listing, settings, samples, others),
        source_sha256=source_hash((sample.key, sample.checksum) for sample in samples),
    )


def _samples(
    usable: list[tuple[Record, str]],
    keys: dict[Path, str],
    listing: Listing,
    settings: ShardSettings,
    found: Twins | None,
    *,
    keep_leaks: bool,
) -> tuple[list[Sample], tuple[PassedOver, ...]]:
    """Samples with their groups and splits, sorted by key; and the images that are left out because they leak."""
    groups = groups_of(usable, keep_names=settings.keep_names)
    records = [record for record, _ in usable]
    table = splits.split_table(
        [record.labels for record in records],
        groups if found is None else duplicates.units(groups, found),
        [record.split for record in records],
        listing.classes,
        grouped=settings.split == "grouped",
    )
    leaks = {} if found is None or keep_leaks else duplicates.leaking(table, found)
    samples = [
        Sample(key=keys[record.path], record=record, group=group, split=split, checksum=checksum)
        for i, ((record, checksum), group, split) in enumerate(zip(usable, groups, table, strict=True))
        if i not in leaks
    ]
    return sorted(samples, key=lambda sample: sample.key), duplicates.left_out(records, table, leaks)


def _check_train(dataset: Dataset, samples: list[Sample]) -> None:
    """Raise `ValueError` if there are samples and none is in train."""
    if samples and not any(sample.split == "train" for sample in samples):
        parts = ", ".join(f"{count:,} in {part}" for part, count in Counter(sample.split for sample in samples).items())
        raise ValueError(
            f"{dataset.name}: no image is in train ({parts}); put some there in the split column or the folders, or "
            "leave some without a split"
        )


def _fingerprint(
    dataset: Dataset, listing: Listing, settings: ShardSettings, samples: list[Sample], others: dict[Path, str]
) -> str:
    """16 digits of a hash of all that the shards hold: files, keys, labels, groups, splits, settings and decoder.

    `others` names the samples that earlier versions decoded otherwise, with their kinds.
    """
    digest = hashlib.sha256()
    head = [dataset.name, settings.to_json(), listing.classes, listing.task, images.REVISION]
    digest.update(json.dumps(head, sort_keys=True).encode())
    for sample in samples:
        row = [sample.key, sample.checksum, sample.record.labels, sample.group, sample.split]
        digest.update(json.dumps(row).encode())
    for kind in sorted({others[sample.record.path] for sample in samples if sample.record.path in others}):
        digest.update(f"decoded otherwise than before: {kind}".encode())
    return digest.hexdigest()[:16]


def source_hash(checksums: Iterable[tuple[str, str]]) -> str:
    """SHA-256 of the keys of all samples and the checksums of their files, sorted."""
    digest = hashlib.sha256()
    for key, checksum in checksums:
        digest.update(f"{key} {checksum}\n".encode())
    return digest.hexdigest()


def keys_of(
    readable: list[tuple[Record, str]], root: Path, *, keep_names: bool, stored: Mapping[str, str] = NONE_STORED
) -> tuple[dict[Path, str], list[Entry]]:
    """A key for each path, and the entries of images whose published id cannot be a key.

    The key is the published id; else, with `keep_names`, the cleaned file name; else a hash. `stored` are the keys that
    shards have already, with the checksums of their files: a name among them is that of such a file alone.
    """
    keys: dict[Path, str] = {}
    unusable: list[Entry] = []
    taken: dict[str, Record] = {}
    for record, checksum in readable:
        member = members.member_of(record.path)  # neither its tar nor its place in it is a part of its name
        name = member.name if member else quarantine.relative_name(record.path, root)
        key = record.key or short_hash(checksum, name)
        if keep_names and record.key is None:
            cleaned = re.sub(r"[^A-Za-z0-9-]+", "_", str(Path(name).with_suffix(""))).strip("_-")
            is_taken = cleaned in taken or stored.get(cleaned, checksum) != checksum
            key = f"{cleaned}_{key[:8]}" if is_taken else cleaned or key
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", key):
            reason = f"its id {key!r} holds characters that tar readers split names at"
            unusable.append(quarantine.entry(record.path, root, reason))
            continue
        if key in taken:
            problem = _again(record, taken[key])
            unusable.append(quarantine.entry(record.path, root, problem))
            if problem != AGAIN and taken[key].path in keys:
                del keys[taken[key].path]
                unusable.append(quarantine.entry(taken[key].path, root, problem))
            continue
        taken[key] = record
        keys[record.path] = key
    return keys, unusable


def _again(one: Record, other: Record) -> str:
    """What is wrong with two images of one name and content, which only tars can hold."""
    equal = (one.labels, one.group, one.split) == (other.labels, other.group, other.split)
    return AGAIN if equal else f"{AGAIN}, with another label, group or split"


def groups_of(usable: list[tuple[Record, str]], *, keep_names: bool) -> list[str | None]:
    """The group of each image; a group that nobody published becomes a hash of its images, because it may be a name."""
    members: dict[str, list[str]] = {}
    for record, checksum in usable:
        if record.group is not None:
            members.setdefault(record.group, []).append(checksum)
    hashes = {group: short_hash("group", *sorted(checksums)) for group, checksums in members.items()}
    return [r.group if keep_names or r.key or r.group is None else hashes[r.group] for r, _ in usable]


def short_hash(*parts: str) -> str:
    """20 hexadecimal digits of a SHA-256; a name's bytes that are no UTF-8 count as they are."""
    return hashlib.sha256("\x1f".join(parts).encode(errors="surrogateescape")).hexdigest()[:20]
