"""The manifest of a shard folder: what it holds, said once all tars are written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pipeline.data import images, splits
from pipeline.data.records import STANDIN_MARK, Record
from pipeline.data.shards import duplicates
from pipeline.data.shards.counts import count_images, to_json
from pipeline.data.shards.observed import Observed
from pipeline.data.shards.plan import Sample, ShardPlan, short_hash
from pipeline.data.shards.quarantine import Entry
from pipeline.data.twins import Twins


def make_manifest(
    plan: ShardPlan, rows: list[dict[str, Any]], quarantined: list[Entry], observed: Observed, found: Twins
) -> dict[str, Any]:
    """The manifest of a plan's shards: from the rows of their index, what was seen, what could not be used, twins."""
    written = {row["key"] for row in rows}
    samples = [sample for sample in every_sample(plan) if sample.key in written]
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
        **leaks(samples),
        "twins": _twins(samples, rows, found),
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
    rows = zip(plan.parent.rows, plan.parent.checksums, strict=True)
    return [_stored(plan.parent.folder, row, checksum) for row, checksum in rows] + plan.samples


def _stored(folder: Path, row: Mapping[str, Any], checksum: str) -> Sample:
    labels = None if row["labels"] is None else tuple(row["labels"])
    record = Record(key=None, path=folder / row["tar"], labels=labels, group=row["group"])
    return Sample(key=row["key"], record=record, group=row["group"], split=row["split"], checksum=checksum)


def _twins(samples: Sequence[Sample], rows: Sequence[Mapping[str, Any]], found: Twins) -> dict[str, Any]:
    checksums = {sample.key: sample.checksum for sample in samples}
    keys = [row["key"] for row in rows]
    return duplicates.summarise(
        found,
        keys=keys,
        checksums=[checksums[key] for key in keys],
        table=[row["split"] for row in rows],
        labels=[row["labels"] if row["labels"] is None else tuple(row["labels"]) for row in rows],
    )


def _fingerprint(plan: ShardPlan, written: set[str]) -> str:
    """The plan's fingerprint, or another one if decoding left samples out: without them it is another dataset."""
    lacking = sorted(sample.key for sample in plan.samples if sample.key not in written)
    return short_hash(plan.fingerprint, *lacking)[:16] if lacking else plan.fingerprint


def leaks(samples: Sequence[Sample]) -> dict[str, int | None]:
    """What is known of leaks between the splits of these samples, by its keys in manifests."""
    table = [sample.split for sample in samples]
    groups = [sample.group for sample in samples]
    return {
        "groups": len(set(groups) - {None}),
        "without_group": groups.count(None),
        "test_sharing_group_with_train": splits.shared_groups(groups, table),
        "identical_across_splits": splits.identical_across([sample.checksum for sample in samples], table),
    }
