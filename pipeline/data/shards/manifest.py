"""The manifest of a shard folder: what it holds, said once all tars are written."""

from __future__ import annotations

from collections import Counter
from importlib.metadata import version
from typing import Any

from pipeline.data import splits
from pipeline.data.records import STANDIN_MARK
from pipeline.data.shards.plan import ShardPlan, short_hash
from pipeline.data.shards.quarantine import Entry


def make_manifest(plan: ShardPlan, rows: list[dict[str, Any]], quarantined: list[Entry]) -> dict[str, Any]:
    """The manifest of a plan's shards, from the rows of their index and all images that could not be used."""
    written = {row["key"] for row in rows}
    samples = [sample for sample in plan.samples if sample.key in written]
    table = [sample.split for sample in samples]
    return {
        "name": plan.dataset.name,
        "fingerprint": _fingerprint(plan, written),
        "task": plan.listing.task,
        "classes": list(plan.listing.classes),
        "metric": plan.dataset.metric,
        "label_fractions": list(plan.dataset.label_fractions),
        "settings": dict(plan.settings.__dict__),
        "counts": _counts(rows, plan.listing.classes),
        "test_sharing_group_with_train": splits.shared_groups([s.group for s in samples], table),
        "identical_across_splits": splits.identical_across([s.checksum for s in samples], table),
        "source_sha256": plan.source_sha256,
        "versions": {name: version(name) for name in ("pillow", "numpy", "pyarrow")},
        "quarantined": sorted(quarantined, key=lambda entry: entry["file"]),
        "stand_in": (plan.root / STANDIN_MARK).exists(),
    }


def _fingerprint(plan: ShardPlan, written: set[str]) -> str:
    """The plan's fingerprint, or another one if decoding left samples out: without them it is another dataset."""
    lacking = sorted(sample.key for sample in plan.samples if sample.key not in written)
    return short_hash(plan.fingerprint, *lacking)[:16] if lacking else plan.fingerprint


def _counts(rows: list[dict[str, Any]], classes: tuple[str, ...]) -> dict[str, dict[str, int]]:
    """Images by split: all, those without a label and those of each class."""
    counts: dict[str, dict[str, int]] = {}
    for split in splits.SPLITS:
        members = [row["labels"] for row in rows if row["split"] == split]
        counter = Counter(name for labels in members for name in labels or ())
        counts[split] = {
            "pictures": len(members),
            "unlabelled": sum(labels is None for labels in members),
            **{name: counter[name] for name in classes},
        }
    return counts
