"""What a person is told of shards, written or planned: images by class and split, leaks, gaps, what was left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.core.console import counted, table, visible
from pipeline.data.labels import listed
from pipeline.data.records import PassedOver
from pipeline.data.shards.counts import SplitCounts, count_images, counts_of, gaps
from pipeline.data.shards.index import Shards
from pipeline.data.shards.manifest import leaks
from pipeline.data.shards.observed import Observed
from pipeline.data.shards.plan import ShardPlan
from pipeline.data.shards.quarantine import Entry, relative_name

NAMED = 3  # files of each kind that are named


def of_plan(plan: ShardPlan) -> str:
    """The summary of shards that are still to be written."""
    counts = count_images(((sample.split, sample.record.labels) for sample in plan.samples), plan.listing.classes)
    title = f"{plan.dataset.name}: {plan.listing.task}"
    return _summary(title, counts, leaks(plan.samples), [], plan, plan.quarantined, Observed())


def of_shards(shards: Shards, plan: ShardPlan) -> str:
    """The summary of the shards that were written after this plan."""
    manifest = shards.manifest
    title = f"{manifest['name']}: {manifest['task']}, fingerprint {manifest['fingerprint']}"
    known = dict(manifest)
    if "groups" not in known:  # of an earlier version, which stored 0 where no group is known
        groups = shards.rows["group"].array
        known |= {"groups": len(groups.unique().drop_null()), "without_group": groups.null_count}
    observed = Observed.of_json(manifest)
    return _summary(title, counts_of(manifest), known, _twins(manifest), plan, manifest["quarantined"], observed)


def account(plan: ShardPlan, quarantined: Sequence[Entry]) -> list[str]:
    """One line for each image and each thing passed over: what became of it, why, and its name, apart by tabs."""
    known = {(entry["file"], entry["reason"]) for entry in plan.quarantined}
    undecodable = {entry["file"] for entry in quarantined if (entry["file"], entry["reason"]) not in known}
    lines = [f"quarantined\t{visible(entry['reason'])}\t{visible(entry['file'])}" for entry in quarantined]
    for passed in plan.listing.passed_over:
        lines.append(f"passed over\t{visible(passed.kind)}\t{visible(relative_name(passed.path, plan.root))}")
    for sample in plan.samples:
        name = visible(relative_name(sample.record.path, plan.root))
        if name not in undecodable:
            lines.append(f"written\t{sample.split}\t{name}")
    return sorted(lines)


def _summary(
    title: str,
    counts: Mapping[str, SplitCounts],
    leaks: Mapping[str, Any],
    twins: Sequence[str],
    plan: ShardPlan,
    quarantined: Sequence[Entry],
    observed: Observed,
) -> str:
    written = sum(each.images for each in counts.values())
    passed_over = plan.listing.passed_over
    found = written + len(quarantined) + len(passed_over)
    parts = [
        f"{title}\n",
        _count_table(counts),
        "",
        _groups(leaks, grouped=plan.settings.split == "grouped"),
        f"{counted(leaks['identical_across_splits'], 'file is', 'files are')} byte-identical to one in another split",
        *twins,
        *gaps(counts),
        *(visible(note) for note in plan.listing.notes),
        *map(visible, observed.lines(plan.settings.bits)),
        f"{found} found: {written} written, {len(quarantined)} quarantined, {len(passed_over)} passed over",
    ]
    if passed_over:
        parts += ["", _passed_over_table(passed_over, plan), ""]
    parts.append(f"{len(quarantined)} of {written + len(quarantined)} quarantined")
    if quarantined:
        rows = sorted([entry["file"], entry["reason"]] for entry in quarantined)
        parts.append(table(rows, header=("file", "reason")))
    return "\n".join(parts)


def _count_table(counts: Mapping[str, SplitCounts]) -> str:
    totals = {
        "unlabelled": [each.unlabelled for each in counts.values()],
        "images": [each.images for each in counts.values()],
    }
    names = next(iter(counts.values())).classes
    rows: list[list[object]] = [
        [repr(name) if name in totals else name, *(each.classes[name] for each in counts.values())] for name in names
    ]
    rows += [[name, *numbers] for name, numbers in totals.items()]
    return table(rows, header=("", *counts))


def _groups(leaks: Mapping[str, Any], *, grouped: bool) -> str:
    """What is known of lesions and patients in several splits; what is not known is never called 0."""
    if not leaks["groups"]:
        text = "no lesion or patient is known: whether test images share one with training images cannot be said"
        return text + ("; --split grouped therefore keeps near duplicates together and nothing else" if grouped else "")
    shared = counted(leaks["test_sharing_group_with_train"], "test image shares", "test images share")
    unknown = counted(leaks["without_group"], "image")
    text = f"{shared} a lesion or patient with a training image"
    return text + (f" (it is not known for {unknown})" if leaks["without_group"] else "")


def _twins(known: Mapping[str, Any]) -> list[str]:
    """How many images of test and val have a twin in train, and which twins have different labels."""
    if "twins" not in known:
        return [
            "whether images of test have near duplicates in train is not known: these shards are of an earlier version"
        ]
    out = []
    for split in ("test", "val"):
        counts = known["twins"][split]
        kinds = {"exact": "byte-identical", "near": "near", "mirrored": "mirrored"}
        found = {word: counts[kind] for kind, word in kinds.items() if counts[kind]}
        parts = ", ".join(f"{count} {word}" for word, count in found.items())
        line = f"{sum(found.values())} of {counts['images']} {split} images have a twin in train"
        out.append(f"{line}: {parts}" if parts else line)
    if count := known["twins"]["other_labels"]:
        pairs = listed(" and ".join(pair) for pair in known["twins"]["with_other_labels"])
        out.append(f"{counted(count, 'pair of twins has', 'pairs of twins have')} different labels: {pairs}")
    return out


def _passed_over_table(passed_over: Sequence[PassedOver], plan: ShardPlan) -> str:
    kinds = Counter(passed.kind for passed in passed_over)
    rows = []
    for kind, count in sorted(kinds.items()):
        names = [relative_name(passed.path, plan.root) for passed in passed_over if passed.kind == kind]
        more = ", …" if count > NAMED else ""
        rows.append([kind, count, ", ".join(visible(name) for name in names[:NAMED]) + more])
    return table(rows, header=("passed over", "number", "for example"))
