"""What a person is told of shards, written or planned: images by class and split, leaks, gaps, what was left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.core.console import counted, table, visible
from pipeline.data.records import PassedOver
from pipeline.data.shards import facts
from pipeline.data.shards.counts import SplitCounts, count_images, counts_of, gaps, to_json
from pipeline.data.shards.index import Shards
from pipeline.data.shards.manifest import every_sample, kinds, leaks_of_plan
from pipeline.data.shards.observed import Observed
from pipeline.data.shards.plan import ShardPlan
from pipeline.data.shards.quarantine import Entry, relative_name

NAMED = 3  # files of each kind that are named


def of_plan(plan: ShardPlan) -> str:
    """The summary of shards that are still to be written."""
    samples = every_sample(plan)
    counts = count_images(((sample.split, sample.record.labels) for sample in samples), plan.listing.classes)
    title = f"{plan.dataset.name}: {plan.listing.task}"
    known = leaks_of_plan(plan, samples) | kinds(plan, samples)
    return _summary(title, counts, known, [], plan, plan.quarantined, Observed())


def json_of_plan(plan: ShardPlan) -> dict[str, Any]:
    """The same for programs."""
    samples = every_sample(plan)
    counts = count_images(((sample.split, sample.record.labels) for sample in samples), plan.listing.classes)
    head = {"name": plan.dataset.name, "task": plan.listing.task}
    return head | _facts(counts, leaks_of_plan(plan, samples), plan, plan.quarantined)


def of_shards(shards: Shards, plan: ShardPlan) -> str:
    """The summary of the shards that were written after this plan."""
    manifest = shards.manifest
    title = f"{manifest['name']}: {manifest['task']}, fingerprint {manifest['fingerprint']}"
    observed = Observed.of_json(manifest)
    said = [*facts.twins(manifest), *_read_back(manifest)]
    return _summary(title, counts_of(manifest), facts.groups_of(shards), said, plan, manifest["quarantined"], observed)


def json_of_shards(shards: Shards, plan: ShardPlan) -> dict[str, Any]:
    """The same for programs."""
    manifest = shards.manifest
    head = {name: manifest[name] for name in ("name", "task", "fingerprint")}
    head["twins"] = manifest.get("twins")
    return head | _facts(counts_of(manifest), facts.groups_of(shards), plan, manifest["quarantined"])


def _facts(
    counts: Mapping[str, SplitCounts], leaks: Mapping[str, Any], plan: ShardPlan, quarantined: Sequence[Entry]
) -> dict[str, Any]:
    names = ("groups", "without_group", "test_sharing_group_with_train", "identical_across_splits")
    return {
        "images": to_json(counts),
        **{name: leaks[name] for name in names},
        "written": _written(counts, plan),
        "stored_already": plan.parent.matched if plan.parent else 0,
        "quarantined": quarantined,
        "passed_over": Counter(passed.kind for passed in plan.listing.passed_over),
    }


def _written(counts: Mapping[str, SplitCounts], plan: ShardPlan) -> int:
    """How many images are new; the others are in the shards that grow."""
    return sum(each.images for each in counts.values()) - (len(plan.parent.rows) if plan.parent else 0)


def _read_back(manifest: Mapping[str, Any]) -> list[str]:
    """Whether the tars were read back; nothing of shards of earlier code."""
    if "read_back_by" not in manifest:
        return []
    if by := manifest["read_back_by"]:
        return [f"the new tars were read back by {by}: every sample is as it was written"]
    return ["the new tars were not read back by a second reader: --no-check, or the extra webdataset is not installed"]


def account(plan: ShardPlan, quarantined: Sequence[Entry]) -> list[str]:
    """One line for each image and each thing passed over: what became of it, why, and its name, apart by tabs."""
    known = {(entry["file"], entry["reason"]) for entry in plan.quarantined}
    undecodable = {entry["file"] for entry in quarantined if (entry["file"], entry["reason"]) not in known}
    hidden: dict[str, list[str]] = {name: [real] for name, real in plan.real_names.items()}
    lines = []
    for passed in plan.listing.passed_over:
        lines.append(f"passed over\t{visible(passed.kind)}\t{visible(relative_name(passed.path, plan.root))}")
    for sample in plan.samples:
        name = plan.names.of(sample.record.path, sample.checksum, sample.record.part)
        real = plan.names.real(sample.record.path, sample.record.part)
        if name not in undecodable:
            lines.append(f"written\t{sample.split}\t{real}")
        elif plan.hides_names:
            hidden.setdefault(name, []).append(f"{real} ({name})")  # several where files are equal
    for entry in quarantined:
        names = hidden.get(entry["file"]) or [visible(entry["file"])]
        lines.append(f"quarantined\t{visible(entry['reason'])}\t{names.pop(0)}")
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
    written, matched = _written(counts, plan), plan.parent.matched if plan.parent else 0
    passed_over = plan.listing.passed_over
    found = written + matched + len(quarantined) + len(passed_over)
    already = f", {matched} stored already" if plan.parent else ""
    parts = [
        f"{title}\n",
        table(facts.count_rows(counts), header=("", *counts)),
        "",
        *(part for text in facts.kinds(leaks) for part in (text, "")),
        facts.groups(leaks, grouped=plan.settings.split == "grouped"),
        f"{counted(leaks['identical_across_splits'], 'file is', 'files are')} byte-identical to one in another split",
        *twins,
        *gaps(counts),
        *(visible(note) for note in plan.listing.notes),
        *map(visible, observed.lines(plan.settings.bits)),
        f"{found} found: {written} written, {len(quarantined)} quarantined, {len(passed_over)} passed over{already}",
    ]
    if passed_over:
        parts += ["", _passed_over_table(passed_over, plan), ""]
    parts.append(f"{len(quarantined)} of {written + matched + len(quarantined)} quarantined")
    if plan.hides_names and (quarantined or passed_over):
        parts.append("names of files are not shown, because they can be names of patients; --list FILE writes them")
    if quarantined:
        parts.append(_quarantined_table(quarantined, plan))
    return "\n".join(parts)


def _quarantined_table(quarantined: Sequence[Entry], plan: ShardPlan) -> str:
    """Each file with its reason; where names are not shown, each reason with its number of files."""
    if not plan.hides_names:
        return table(sorted([bad["file"], bad["reason"]] for bad in quarantined), header=("file", "reason"))
    by_reason: dict[str, list[str]] = {}
    for bad in quarantined:
        by_reason.setdefault(bad["reason"], []).append(bad["file"])
    rows = [
        [reason, len(names), ", ".join(names[:NAMED]) + (", …" if len(names) > NAMED else "")]
        for reason, names in sorted(by_reason.items())
    ]
    return table(rows, header=("quarantined", "number", "for example"))


def _passed_over_table(passed_over: Sequence[PassedOver], plan: ShardPlan) -> str:
    kinds = Counter(passed.kind for passed in passed_over)
    rows = []
    for kind, count in sorted(kinds.items()):
        names = [relative_name(passed.path, plan.root) for passed in passed_over if passed.kind == kind]
        more = ", …" if count > NAMED else ""
        rows.append([kind, count, "" if plan.hides_names else ", ".join(map(visible, names[:NAMED])) + more])
    return table(rows, header=("passed over", "number", "for example"))
