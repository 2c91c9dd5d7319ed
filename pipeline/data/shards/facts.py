"""What is known of shards from what they store: images by class and split, groups, twins, what was left out.

What is not known is said as such, and never called 0.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pipeline.core import files
from pipeline.core.console import counted, table, visible
from pipeline.data.labels import listed
from pipeline.data.shards.counts import SplitCounts
from pipeline.data.shards.index import Shards
from pipeline.data.splits import SPLITS as SPLITS_OF_IMAGES

SHEET = "duplicates.png"  # the pairs nearest the limit of what counts as a twin, in a shard folder
SPLITS = {
    "image": "each image for itself: patients, lesions and twins may be in several parts",
    "grouped": "patients, lesions and twins stay in one part",
}
# in the kinds of what was passed over (data/shards/duplicates and extend)
LEAKS = (" images with a twin in ", " images of a lesion or patient in ")


def count_rows(counts: Mapping[str, SplitCounts]) -> list[list[object]]:
    """Images by class and split, then the unlabelled and all of them: a row for each, under the names of the splits."""
    totals = {
        "unlabelled": [each.unlabelled for each in counts.values()],
        "images": [each.images for each in counts.values()],
    }
    names = next(iter(counts.values())).classes
    rows: list[list[object]] = [
        [repr(name) if name in totals else name, *(each.classes[name] for each in counts.values())] for name in names
    ]
    return rows + [[name, *numbers] for name, numbers in totals.items()]


def groups_of(shards: Shards) -> Mapping[str, Any]:
    """The manifest with what is known of groups; earlier versions stored 0 where no group is known."""
    known = dict(shards.manifest)
    if "groups" not in known:
        groups = shards.rows["group"].array
        known |= {"groups": len(groups.unique().drop_null()), "without_group": groups.null_count}
    return known


def groups(leaks: Mapping[str, Any], *, grouped: bool) -> str:
    """What is known of lesions and patients in several splits."""
    if not leaks["groups"]:
        text = "no lesion or patient is known: whether test images share one with training images cannot be said"
        return text + ("; --split grouped therefore keeps near duplicates together and nothing else" if grouped else "")
    shared = counted(leaks["test_sharing_group_with_train"], "test image shares", "test images share")
    unknown = counted(leaks["without_group"], "image")
    text = f"{shared} a lesion or patient with a training image"
    return text + (f" (it is not known for {unknown})" if leaks["without_group"] else "")


def kinds(known: Mapping[str, Any]) -> list[str]:
    """Images by what headers say that they are, and groups by split; empty where no header is read."""
    if "kinds" not in known:
        return []
    by_kind: Mapping[str, Mapping[str, int]] = known["kinds"]
    rows: list[list[object]] = [[name, *counts.values()] for name, counts in by_kind.items()]
    rows.append(["patients, or files of several images", *known["groups_by_split"].values()])
    return [table(rows, header=("by header", *SPLITS_OF_IMAGES))]


def twins(known: Mapping[str, Any]) -> list[str]:
    """How many images of test and val have a twin in train, and which twins have different labels."""
    if "twins" not in known:
        return ["near duplicates were not looked for, so it is not known whether images of test have some in train"]
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


def _split(shards: Shards) -> str:
    """What the split keeps together, and not more than is counted: a curator may have put it into several parts."""
    split = shards.manifest["settings"].get("split", "")
    known: Mapping[str, Mapping[str, int]] = shards.manifest.get("twins", {})
    counts = [known[part][kind] for part in ("test", "val") if part in known for kind in ("exact", "near", "mirrored")]
    apart = groups_of(shards).get("test_sharing_group_with_train") or any(counts)
    but = ", but for those that are counted below" if split == "grouped" and apart else ""
    return f"split {split}: {SPLITS.get(split, 'not known')}{but}"


def part_hash(shards: Shards, split: str) -> str:
    """8 digits of a hash of a split's keys, labels and stored bytes: equal where two shards have the same there."""
    rows = shards.of_split(split)
    keys, sums = (shards.rows[name].array.to_pylist() for name in ("key", "sha256"))
    parts = sorted([keys[row], sums[row], labels] for row, labels in zip(rows, shards.labels(rows), strict=True))
    return files.sha256_bytes(json.dumps(parts).encode())[:8]


def lines(shards: Shards) -> list[str]:
    """All that a report and a model card say of shards below the table of counts: one sentence each."""
    manifest = shards.manifest
    shared, of_test, left_out = leaks(shards)
    out = [
        _split(shards),
        shared,
        of_test,
        *twins(manifest)[1:],
        *_by_header(manifest),
        left_out,
        *_grown(shards),
    ]
    return [*out, f"fingerprint {shards.fingerprint} (sources, labels, splits, size, codec)"]


def leaks(shards: Shards) -> tuple[str, str, str]:
    """The sentences on groups in two splits, on twins of test images and on what was left out."""
    grouped = shards.manifest["settings"].get("split", "") == "grouped"
    return groups(groups_of(shards), grouped=grouped), twins(shards.manifest)[0], _left_out(shards.manifest)


def _by_header(manifest: Mapping[str, Any]) -> list[str]:
    """Modalities, patients and windows where headers were read."""
    if "kinds" not in manifest:
        return []

    def counts(of: Mapping[str, int]) -> str:
        return " / ".join(f"{of[split]:,}" for split in SPLITS_OF_IMAGES)

    kinds = ", ".join(f"{name} {counts(of)}" for name, of in manifest["kinds"].items())
    read = "; ".join(f"{counted(count, 'image')}: {visible(text)}" for text, count in manifest["remarks"].items())
    return [
        f"images by header (train / val / test): {kinds}",
        f"patients, or files of several images (train / val / test): {counts(manifest['groups_by_split'])}",
        f"how they were read: {read}",
    ]


def _grown(shards: Shards) -> list[str]:
    """Of which shards these are an extension, if they are one."""
    known = shards.manifest.get("extends")
    if known is None:
        return []
    return [
        f"extends {known['parent'][:8]} with its {known['images']:,} images; val and test are those of "
        f"{known['base'][:8]} (test part {part_hash(shards, 'test')})"
    ]


def _left_out(manifest: Mapping[str, Any]) -> str:
    """How many files are not in the shards; the reasons of single files are in the manifest alone."""
    bad = f"{len(manifest['quarantined'])} quarantined" if "quarantined" in manifest else "quarantined: not known"
    if "passed_over" not in manifest:
        return f"{bad}; what was passed over is not known"
    kinds: Mapping[str, int] = manifest["passed_over"]
    leaks = {kind: count for kind, count in kinds.items() if any(words in kind for words in LEAKS)}
    parts = [bad, f"{sum(kinds.values()) - sum(leaks.values())} passed over"]
    parts.append(f"{sum(leaks.values())} left out because they leak")
    said = ", ".join(f"{count} {visible(kind)}" for kind, count in leaks.items())
    return ", ".join(parts) + (f": {said}" if said else "")
