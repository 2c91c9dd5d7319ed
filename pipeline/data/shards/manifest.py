"""The manifest of a shard folder: what it holds, said once all tars are written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pipeline.data import images, splits
from pipeline.data.formats.files import Source
from pipeline.data.records import STANDIN_MARK, Record
from pipeline.data.shards import duplicates
from pipeline.data.shards.counts import count_images, to_json
from pipeline.data.shards.keys import short_hash
from pipeline.data.shards.observed import Observed
from pipeline.data.shards.parent import Origin
from pipeline.data.shards.plan import Sample, ShardPlan, revisions_of
from pipeline.data.shards.quarantine import Entry
from pipeline.data.twins import Twins


def make_manifest(
    plan: ShardPlan, rows: list[dict[str, Any]], quarantined: list[Entry], observed: Observed, found: Twins
) -> dict[str, Any]:
    """The manifest of a plan's shards: from the rows of their index, what was seen, what could not be used, twins."""
    written = {row["key"] for row in rows}
    samples = [sample for sample in every_sample(plan) if sample.key in written]
    stored = {row["key"]: row["sha256"] for row in rows}
    counts = count_images(((row["split"], row["labels"]) for row in rows), plan.listing.classes)
    return {
        "name": plan.dataset.name,
        "fingerprint": _fingerprint(plan, written),
        **({} if plan.parent is None else {"extends": plan.parent.to_json()}),
        "task": plan.listing.task,
        "classes": list(plan.listing.classes),
        "metric": plan.dataset.metric,
        "label_fractions": list(plan.dataset.label_fractions),
        "settings": plan.settings.to_json(),
        "counts": to_json(counts),
        **leaks(samples, stored),
        **kinds(plan, samples),
        **_read_as(plan),
        "twins": _twins(samples, stored, rows, found),
        "source_sha256": plan.source_sha256,
        "versions": {name: version(name) for name in ("pillow", "numpy", "pyarrow")},
        "pixels_by": images.makers(plan.settings.format),
        "quarantined": sorted(quarantined, key=lambda entry: entry["file"]),
        "passed_over": dict(sorted(Counter(passed.kind for passed in plan.listing.passed_over).items())),
        "notes": list(plan.listing.notes),
        **observed.to_json(),
        "stand_in": (plan.root / STANDIN_MARK).exists() or bool(plan.parent and plan.parent.manifest.get("stand_in")),
    }


def every_sample(plan: ShardPlan) -> list[Sample]:
    """The samples of the shards that a plan extends, with the paths of their tars, and those that it writes."""
    if plan.parent is None:
        return plan.samples
    parent = plan.parent
    return [_stored(parent.folder, row, parent.origins[row["key"]]) for row in parent.rows] + plan.samples


def _stored(folder: Path, row: Mapping[str, Any], origin: Origin) -> Sample:
    labels = None if row["labels"] is None else tuple(row["labels"])
    record = Record(key=None, path=folder / row["tar"], labels=labels, group=row["group"])
    source = Source(record.path, origin.checksum, ends=origin.ends)
    more = {"group": row["group"], "split": row["split"], "series": origin.series}
    return Sample(key=row["key"], record=record, source=source, **more)


def _twins(
    samples: Sequence[Sample], stored: Mapping[str, str], rows: Sequence[Mapping[str, Any]], found: Twins
) -> dict[str, Any]:
    contents = dict(zip((sample.key for sample in samples), _contents(samples, stored), strict=True))
    keys = [row["key"] for row in rows]
    return duplicates.summarise(
        found,
        keys=keys,
        contents=[contents[key] for key in keys],
        table=[row["split"] for row in rows],
        labels=[row["labels"] if row["labels"] is None else tuple(row["labels"]) for row in rows],
    )


def _fingerprint(plan: ShardPlan, written: set[str]) -> str:
    """The plan's fingerprint, or another one if decoding left samples out: without them it is another dataset."""
    lacking = sorted(sample.key for sample in plan.samples if sample.key not in written)
    return short_hash(plan.fingerprint, *lacking)[:16] if lacking else plan.fingerprint


def _read_as(plan: ShardPlan) -> dict[str, Any]:
    """By what the pixels were read where Pillow alone does not, and with which key ids in headers were hashed."""
    stored = plan.parent.manifest if plan.parent else {}
    revisions = {**stored.get("read_as", {}), **revisions_of(plan.samples)}
    out: dict[str, Any] = {"read_as": revisions} if revisions else {}
    return out | ({"id_key": plan.id_key} if plan.hides_names or "id_key" in stored else {})


def kinds(plan: ShardPlan, samples: Sequence[Sample]) -> dict[str, Any]:
    """Images by what headers say that they are, and groups, of each split; nothing where no header is read.

    `samples` begin with those of the shards that are extended, of which their manifest says it.
    """
    stored = plan.parent.manifest.get("kinds", {}) if plan.parent else {}
    if not stored and not any(sample.kind for sample in samples):
        return {}
    numbers = Counter({(name, split): count for name, counts in stored.items() for split, count in counts.items()})
    unknown = samples[len(plan.parent.rows) :] if plan.parent and stored else samples
    numbers.update((sample.kind or "other files", sample.split) for sample in unknown)
    groups = Counter(split for _, split in {(s.group, s.split) for s in samples if s.group is not None})
    names = sorted({kind for kind, _ in numbers})
    return {
        "kinds": {name: {split: numbers[name, split] for split in splits.SPLITS} for name in names},
        "groups_by_split": {split: groups[split] for split in splits.SPLITS},
    }


def leaks_of_plan(plan: ShardPlan, samples: Sequence[Sample]) -> dict[str, int | None]:
    """`leaks` before anything is written: of shards that are extended, the images of one file are told apart."""
    several: dict[str, set[str]] = {}
    known = list(zip(samples, plan.parent.rows if plan.parent else [], strict=False))
    for sample, row in known:
        several.setdefault(sample.checksum, set()).add(row["sha256"])
    return leaks(samples, {row["key"]: row["sha256"] for sample, row in known if len(several[sample.checksum]) > 1})


def _contents(samples: Sequence[Sample], stored: Mapping[str, str]) -> list[str]:
    """What is equal for two samples of equal files, and differs for images of one file that holds several.

    stored: the checksums of stored images, by key, as far as they are known.
    """
    return [f"{sample.checksum} {stored.get(sample.key, sample.record.part)}" for sample in samples]


def leaks(samples: Sequence[Sample], stored: Mapping[str, str]) -> dict[str, int | None]:
    """What is known of leaks between the splits of these samples, by its keys in manifests; stored: as `_contents`."""
    table = [sample.split for sample in samples]
    groups = [sample.group for sample in samples]
    return {
        "groups": len(set(groups) - {None}),
        "without_group": groups.count(None),
        "test_sharing_group_with_train": splits.shared_groups(groups, table),
        "identical_across_splits": splits.identical_across(_contents(samples, stored), table),
    }
