"""The first pass of sharding: a plan of the shard folder, made before any image is decoded.

It reads every file for its checksum. Keys, groups, splits, order, tars and the fingerprint that names the folder
follow from the listing, the checksums and the settings alone, so every machine makes the same plan.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from pipeline.core.seeds import derive
from pipeline.data import images, splits
from pipeline.data.formats import kinds
from pipeline.data.formats.files import Source
from pipeline.data.records import Dataset, Listing, PassedOver, Record
from pipeline.data.shards import duplicates, quarantine
from pipeline.data.shards.quarantine import Entry, Names
from pipeline.data.shards.raw import Progress as Progress
from pipeline.data.shards.raw import RawFiles, RawImage, new_secret, read_files, with_labels
from pipeline.data.shards.transcode import AUTO, ShardSettings
from pipeline.data.twins import Twins

TAR_BYTES = 256 << 20  # a tar stays below this even if its images do not compress at all
TAR_IMAGES = 2_000  # small enough that a killed job repeats little


@dataclass(frozen=True, kw_only=True)
class Sample:
    """An image that is to be written."""

    key: str
    record: Record
    group: str | None
    split: str
    source: Source
    """The raw file, and which image of it."""
    kind: str = ""
    """What the header of its file says that it is, such as a modality; empty where none is read."""

    @property
    def checksum(self) -> str:
        """SHA-256 of the raw file."""
        return self.source.checksum


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
    hides_names: bool = False
    """Whether files are called by their checksums in all that is written and printed."""
    real_names: Mapping[str, str] = field(default_factory=dict)
    """Then the names of the quarantined files, by what they are called."""

    @property
    def folder_name(self) -> str:
        return f"{self.dataset.name}-{self.settings.size}-{self.settings.split}-{self.fingerprint[:8]}"

    @property
    def names(self) -> Names:
        return Names(self.root, self.hides_names)

    def tars(self) -> list[tuple[str, list[Sample]]]:
        """The name and the samples of every tar; the same plan always gives the same tars."""
        images_per_tar = max(1, min(TAR_IMAGES, TAR_BYTES // (self.settings.size**2 * 3 + 4096)))
        out = []
        for split in splits.SPLITS:
            members = [sample for sample in self.samples if sample.split == split]
            for number, start in enumerate(range(0, len(members), images_per_tar)):
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
    id_key: bytes | None = None,
) -> ShardPlan:
    """Read all files under `root` and plan their shards; writes nothing.

    A grouped split keeps twins together, and leaves out what the curator put in two splits, unless `keep_leaks`. With
    `id_key` the ids in headers become hashes with this key. Raises `ValueError` if the dataset's files cannot be
    listed, and if none of its images is in train.
    """
    listing = dataset.listing(root)
    secret = new_secret(id_key)
    raw = read_files(listing.records, settings.reading, secret, workers=workers, progress=progress)
    listing = with_labels(raw, listing, secret)
    if settings.split == AUTO:
        belong = any(image.found and image.record.group for image in raw.images)
        settings = replace(settings, split="grouped" if belong else "image")
    keys = _keys(raw, root, keep_names=settings.keep_names)
    found = None
    if settings.split == "grouped":
        sources = [image.source for image in raw.images]
        found = duplicates.find_raw_twins(sources, settings, workers=workers, progress=progress)
    samples, left_out = _samples(raw.images, keys, listing, settings, found, keep_leaks=keep_leaks)
    hides_names = raw.holds_dicom or getattr(dataset, "layout", None) == "dicom"
    quarantined, real_names = _quarantined(raw, Names(root, hides_names))
    _check_train(dataset, samples)
    return ShardPlan(
        dataset=dataset,
        listing=_as_found(listing, raw, left_out),
        settings=settings,
        root=root,
        samples=_in_order(samples),
        quarantined=quarantined,
        fingerprint=_fingerprint(dataset, listing, settings, samples, raw.images),
        source_sha256=_source_hash(samples),
        hides_names=hides_names,
        real_names=real_names,
    )


def _as_found(listing: Listing, raw: RawFiles, left_out: Sequence[tuple[Record, PassedOver]]) -> Listing:
    """The listing with a record for each image of a file, and with what turned out to be none."""
    gone = {(record.path, record.part) for record, _ in left_out}
    kept = [image.record for image in raw.images if (image.record.path, image.record.part) not in gone]
    return replace(
        listing,
        records=[*kept, *raw.problems, *raw.refused],
        passed_over=(*listing.passed_over, *raw.passed_over, *(passed for _, passed in left_out)),
        notes=(*listing.notes, *raw.notes()),
    )


def _quarantined(raw: RawFiles, names: Names) -> tuple[list[Entry], dict[str, str]]:
    """Entries for the files that cannot be used, and their real names if names are hidden."""
    entries, real = [], {}
    for number, record in enumerate([*raw.problems, *raw.refused], start=1):
        reason = record.problem or ""
        if names.hidden and number <= len(raw.problems):  # what follows can be a cell of a table or a name
            reason = re.split(r"[:;'\"]", reason)[0]
        name = names.of_unread(record.path, number)
        entries.append(quarantine.entry(name, reason))
        if names.hidden:
            real[name] = f"{names.real(record.path)} ({name})"
    return entries, real


def _in_order(samples: list[Sample]) -> list[Sample]:
    """The samples in the seeded order of their files; the images of a file stay together, so that it is opened once."""
    by_file: dict[Path, list[Sample]] = {}
    for sample in samples:
        by_file.setdefault(sample.record.path, []).append(sample)
    files = list(by_file.values())
    order = np.random.default_rng(derive("shard order", splits.SPLIT_SEED)).permutation(len(files))
    return [sample for number in order for sample in files[number]]


def _samples(
    usable: Sequence[RawImage],
    keys: Sequence[str],
    listing: Listing,
    settings: ShardSettings,
    found: Twins | None,
    *,
    keep_leaks: bool,
) -> tuple[list[Sample], list[tuple[Record, PassedOver]]]:
    """Samples with their groups and splits, sorted by key; and the images that are left out because they leak."""
    groups = _groups(usable, keep_names=settings.keep_names)
    records = [image.record for image in usable]
    table = splits.split_table(
        [record.labels for record in records],
        groups if found is None else duplicates.units(groups, found),
        [record.split for record in records],
        listing.classes,
        grouped=settings.split == "grouped",
    )
    leaks = {} if found is None or keep_leaks else duplicates.leaking(table, found)
    samples = [
        Sample(
            key=key,
            record=image.record,
            group=group,
            split=split,
            source=image.source,
            kind=image.found.kind if image.found else "",
        )
        for i, (key, image, group, split) in enumerate(zip(keys, usable, groups, table, strict=True))
        if i not in leaks
    ]
    left_out = zip([records[i] for i in leaks], duplicates.left_out(records, table, leaks), strict=True)
    return sorted(samples, key=lambda sample: sample.key), list(left_out)


def _check_train(dataset: Dataset, samples: list[Sample]) -> None:
    """Raise `ValueError` if there are samples and none is in train."""
    if samples and not any(sample.split == "train" for sample in samples):
        parts = ", ".join(f"{count:,} in {part}" for part, count in Counter(sample.split for sample in samples).items())
        raise ValueError(
            f"{dataset.name}: no image is in train ({parts}); put some there in the split column or the folders, or "
            "leave some without a split"
        )


def _fingerprint(
    dataset: Dataset, listing: Listing, settings: ShardSettings, samples: list[Sample], usable: Sequence[RawImage]
) -> str:
    """16 digits of a hash of all that the shards hold: files, keys, labels, groups, splits, settings and decoder."""
    digest = hashlib.sha256()
    head = [dataset.name, settings.to_json(), listing.classes, listing.task, images.REVISION]
    digest.update(json.dumps(head, sort_keys=True).encode())
    for sample in samples:
        row = [sample.key, sample.checksum, sample.record.labels, sample.group, sample.split]
        digest.update(json.dumps(row).encode())
    others = {image.source.path: image.changed for image in usable if image.changed}
    for kind in sorted({others[sample.record.path] for sample in samples if sample.record.path in others}):
        digest.update(f"decoded otherwise than before: {kind}".encode())
    for kind in sorted({sample.source.kind for sample in samples if sample.source.kind}):
        digest.update(f"read as {kind}, revision {kinds.REVISIONS[kind]}".encode())
    return digest.hexdigest()[:16]


def _source_hash(samples: list[Sample]) -> str:
    digest = hashlib.sha256()
    for sample in samples:
        digest.update(f"{sample.key} {sample.checksum}\n".encode())
    return digest.hexdigest()


def _keys(raw: RawFiles, root: Path, *, keep_names: bool) -> list[str]:
    """A key for each image that can have one; those whose published id cannot be a key become problems.

    The key is the published id; else, with `keep_names`, the cleaned file name; else a hash.
    """
    keys: list[str] = []
    usable: list[RawImage] = []
    taken: set[str] = set()
    for image in raw.images:
        record, found = image.record, image.found
        name = quarantine.relative_name(record.path, root)
        part = [str(number) for number in record.part]
        whole = short_hash(image.source.checksum, name) if found is None or found.id is None else found.id
        key = record.key or (short_hash(whole, *part) if part else whole)
        if keep_names and record.key is None:
            cleaned = re.sub(r"[^A-Za-z0-9-]+", "_", str(Path(name).with_suffix(""))).strip("_-")
            cleaned = "_".join([cleaned, *part]) if cleaned and part else cleaned
            key = f"{cleaned}_{key[:8]}" if cleaned in taken else cleaned or key
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", key):
            reason = f"its id {key!r} holds characters that tar readers split names at"
            raw.problems.append(replace(record, problem=reason))
            continue
        taken.add(key)
        keys.append(key)
        usable.append(image)
    raw.images = usable
    return keys


def _groups(usable: Sequence[RawImage], *, keep_names: bool) -> list[str | None]:
    """The group of each image; a group that nobody published becomes a hash of its images, because it may be a name."""
    members: dict[str, list[str]] = {}
    for image in usable:
        if image.record.group is not None:
            members.setdefault(image.record.group, []).append(image.source.checksum)
    hashes = {group: short_hash("group", *sorted(checksums)) for group, checksums in members.items()}
    out = []
    for image in usable:
        group, found = image.record.group, image.found
        is_of_header = found is not None and found.group is not None and found.group == group
        is_kept = found is not None and found.is_keyed if is_of_header else keep_names or bool(image.record.key)
        out.append(group if group is None or is_kept else hashes[group])
    return out


def short_hash(*parts: str) -> str:
    """20 hexadecimal digits of a SHA-256; a name's bytes that are no UTF-8 count as they are."""
    return hashlib.sha256("\x1f".join(parts).encode(errors="surrogateescape")).hexdigest()[:20]
