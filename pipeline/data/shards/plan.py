"""The first pass of sharding: a plan of the shard folder, made before any image is decoded.

It reads every file for its checksum. Keys, groups, splits, order, tars and the fingerprint that names the folder
follow from the listing, the checksums and the settings alone, so every machine makes the same plan.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.core.console import counted
from pipeline.core.seeds import derive
from pipeline.data import images, splits
from pipeline.data.formats import kinds
from pipeline.data.formats.files import Source
from pipeline.data.records import Dataset, Listing, PassedOver, Record
from pipeline.data.shards import duplicates, quarantine
from pipeline.data.shards.headers import read_listing, with_ends
from pipeline.data.shards.keys import groups_of, keys_of
from pipeline.data.shards.parent import Origin, Parent
from pipeline.data.shards.quarantine import Entry, Names
from pipeline.data.shards.raw import Progress, RawFiles, RawImage, new_secret
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
    series: str | None = None
    """Of its `origin`."""

    @property
    def checksum(self) -> str:
        """SHA-256 of the raw file."""
        return self.source.checksum

    @property
    def origin(self) -> Origin:
        return Origin(self.checksum, self.source.ends, self.series)


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
    hides_names: bool = False
    """Whether files are called by their checksums in all that is written and printed."""
    real_names: Mapping[str, str] = field(default_factory=dict)
    """Then the names of the quarantined files, by what they are called."""
    id_key: str | None = None
    """What the user's key for ids in headers is known by, where there is one."""

    @property
    def folder_name(self) -> str:
        return f"{self.dataset.name}-{self.settings.size}-{self.settings.split}-{self.fingerprint[:8]}"

    @property
    def names(self) -> Names:
        return Names(self.root, self.hides_names)

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
    id_key: bytes | None = None,
) -> ShardPlan:
    """Read all files under `root` and plan their shards; writes nothing.

    A grouped split keeps twins, patients and lesions together, and leaves out what the curator put in two splits,
    unless `keep_leaks`. With `id_key` the ids in headers become hashes with this key. Raises `ValueError` if the files
    cannot be listed, and if no image is in train.
    """
    secret = new_secret(id_key)
    listing, raw = read_listing(dataset, root, settings.reading, secret, workers=workers, progress=progress)
    if settings.split == AUTO:
        belong = any(image.found and image.record.group for image in raw.images)
        settings = replace(settings, split="grouped" if belong else "image")
    keys = keys_of(raw, root, keep_names=settings.keep_names)
    raw.images = with_ends(raw.images, settings.reading)
    found = None
    if settings.split == "grouped":
        sources = [image.source for image in raw.images]
        found = duplicates.find_raw_twins(sources, settings, workers=workers, progress=progress)
    samples, left_out, joined = _samples(raw.images, keys, listing, settings, found, keep_leaks=keep_leaks)
    _check_train(dataset, samples, len(left_out))
    return plan_with(
        samples,
        raw,
        dataset=dataset,
        listing=as_found(replace(listing, notes=(*listing.notes, *joined)), raw, left_out),
        settings=settings,
        root=root,
        fingerprint=_fingerprint(dataset, listing, settings, samples, raw.images),
        id_key=secret.known_by,
    )


def plan_with(
    samples: Sequence[Sample], raw: RawFiles, *, dataset: Dataset, root: Path, parent: Parent | None = None, **more: Any
) -> ShardPlan:
    """The plan that writes `samples`; `more` are fields of `ShardPlan`."""
    hidden = _hides_names(dataset, raw, parent)
    quarantined, real_names = _entries_of(raw, Names(root, hidden))
    by_key = sorted(samples, key=lambda sample: sample.key)
    checksums = dict(parent.checksums if parent else {}) | {sample.key: sample.checksum for sample in by_key}
    return ShardPlan(
        dataset=dataset,
        root=root,
        samples=_in_order(by_key),
        quarantined=quarantined,
        source_sha256=_source_hash(sorted(checksums.items())),
        parent=parent,
        hides_names=hidden,
        real_names=real_names,
        **more,
    )


def _hides_names(dataset: Dataset, raw: RawFiles, parent: Parent | None) -> bool:
    """Whether files may be named after patients: DICOM is asked for, found, or in the shards extended."""
    asked = getattr(dataset, "layout", None) == "dicom"
    return asked or raw.holds_dicom or (parent is not None and "id_key" in parent.manifest)


def as_found(listing: Listing, raw: RawFiles, left_out: Sequence[tuple[Record, PassedOver]]) -> Listing:
    """The listing with a record for each image of a file, and with what turned out to be none."""
    gone = {(record.path, record.part) for record, _ in left_out}
    kept = [image.record for image in raw.images if (image.record.path, image.record.part) not in gone]
    return replace(
        listing,
        records=[*kept, *raw.problems, *raw.refused],
        passed_over=(*listing.passed_over, *raw.passed_over, *(passed for _, passed in left_out)),
        notes=(*listing.notes, *raw.notes()),
    )


def _entries_of(raw: RawFiles, names: Names) -> tuple[list[Entry], dict[str, str]]:
    """Entries for the files that cannot be used, and their real names if names are hidden."""
    entries, real = [], {}
    for number, record in enumerate([*raw.problems, *raw.refused], start=1):
        reason = record.problem or ""
        if names.hidden and number <= len(raw.problems):  # what follows can be a cell of a table or a name
            reason = re.split(r"[:;('\"]", reason)[0].strip()
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


def sample_of(image: RawImage, key: str, group: str | None, split: str) -> Sample:
    found = image.found
    return Sample(
        key=key,
        record=image.record,
        group=group,
        split=split,
        source=image.source,
        kind=found.kind if found else "",
        series=found.ids.get("series") if found and found.is_keyed and image.source.ends else None,
    )


def _samples(
    usable: Sequence[RawImage],
    keys: Sequence[str],
    listing: Listing,
    settings: ShardSettings,
    found: Twins | None,
    *,
    keep_leaks: bool,
) -> tuple[list[Sample], list[tuple[Record, PassedOver]], list[str]]:
    """Samples with their groups and splits, sorted by key; the images that are left out because they leak; a note."""
    groups = groups_of(usable, keep_names=settings.keep_names)
    records = [image.record for image in usable]
    units = groups if found is None else duplicates.units(groups, found)
    table = splits.split_table(
        [record.labels for record in records],
        units,
        [record.split for record in records],
        listing.classes,
        grouped=settings.split == "grouped",
    )
    leaks = {} if found is None or keep_leaks else duplicates.left_out(records, table, groups, found)
    samples = [
        sample_of(image, key, group, split)
        for i, (key, image, group, split) in enumerate(zip(keys, usable, groups, table, strict=True))
        if i not in leaks
    ]
    left_out = [(records[i], passed) for i, passed in leaks.items()]
    return sorted(samples, key=lambda sample: sample.key), left_out, duplicates.joined(groups, units)


def _check_train(dataset: Dataset, samples: list[Sample], leaking: int) -> None:
    """Raise `ValueError` if there are samples and none is in train; leaking: how many are left out because they do."""
    if samples and not any(sample.split == "train" for sample in samples):
        parts = ", ".join(f"{count:,} in {part}" for part, count in Counter(sample.split for sample in samples).items())
        left_out = f"; {counted(leaking, 'image')} left out because of a twin, patient or lesion in test or val"
        raise ValueError(
            f"{dataset.name}: no image is in train ({parts}{left_out if leaking else ''}); put some there in the split "
            "column or the folders, or leave some without a split" + (", or --keep-leaks" if leaking else "")
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
        digest.update(json.dumps([*row, *(sample.source.ends or ())]).encode())
    others = {image.source.path: image.changed for image in usable if image.changed}
    for kind in sorted({others[sample.record.path] for sample in samples if sample.record.path in others}):
        digest.update(f"decoded otherwise than before: {kind}".encode())
    for kind, revision in revisions_of(samples).items():
        digest.update(f"read as {kind}, revision {revision}".encode())
    return digest.hexdigest()[:16]


def revisions_of(samples: Iterable[Sample]) -> dict[str, int]:
    """The kinds of files whose readers give the pixels, with the readers' revisions."""
    return {kind: kinds.REVISIONS[kind] for kind in sorted({s.source.kind for s in samples if s.source.kind})}


def _source_hash(checksums: Iterable[tuple[str, str]]) -> str:
    """SHA-256 of the keys of all samples and the checksums of their files, sorted."""
    digest = hashlib.sha256()
    for key, checksum in checksums:
        digest.update(f"{key} {checksum}\n".encode())
    return digest.hexdigest()
