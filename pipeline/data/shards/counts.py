"""How many images shards hold, by split and class, and which classes and parts lack images.

Manifests keep the classes apart from the totals, so a class may have any name; older ones are read too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pipeline.core.console import visible
from pipeline.data.labels import listed
from pipeline.data.splits import SPLITS, Labels


@dataclass(frozen=True)
class SplitCounts:
    """The images of one split. Its fields are keys of manifests."""

    images: int
    unlabelled: int
    classes: Mapping[str, int]
    """Images by class; one of several classes counts for each."""

    @property
    def labelled(self) -> int:
        return self.images - self.unlabelled


def count_images(samples: Iterable[tuple[str, Labels]], classes: Sequence[str]) -> dict[str, SplitCounts]:
    """The counts of each split, from the split and the labels of each image."""
    by_split: dict[str, list[Labels]] = {split: [] for split in SPLITS}
    for split, labels in samples:
        by_split[split].append(labels)
    out = {}
    for split, members in by_split.items():
        counter = Counter(name for labels in members for name in labels or ())
        unlabelled = sum(labels is None for labels in members)
        out[split] = SplitCounts(len(members), unlabelled, {name: counter[name] for name in classes})
    return out


def to_json(counts: Mapping[str, SplitCounts]) -> dict[str, Any]:
    """The counts as manifests store them."""
    return {split: asdict(each) for split, each in counts.items()}


def counts_of(manifest: Mapping[str, Any]) -> dict[str, SplitCounts]:
    """The counts of each split that a manifest holds."""
    out = {}
    for split, stored in manifest["counts"].items():
        if isinstance(stored.get("classes"), dict):
            out[split] = SplitCounts(**stored)
        else:  # as up to issue 2: one name space for classes and totals, and `pictures` for images
            classes = {name: count for name, count in stored.items() if name in manifest.get("classes", ())}
            out[split] = SplitCounts(stored["pictures"], stored["unlabelled"], classes)
    return out


def parts_without_labels(manifest: Mapping[str, Any]) -> list[str]:
    """The splits without a labelled image: with any of them no fine-tuning can start."""
    return [split for split, each in counts_of(manifest).items() if not each.labelled]


def gaps(counts: Mapping[str, SplitCounts]) -> list[str]:
    """What is to be known where a part has no labels or a class no images, for training and scores: one line each."""
    if not any(each.labelled for each in counts.values()):
        return ["no image has a label: this dataset can be pretrained on, and fine-tuning cannot start"]
    empty = [split for split, each in counts.items() if not each.labelled]
    out = [f"no image with a label is in {' and '.join(empty)}: fine-tuning cannot start"] if empty else []
    names = list(next(iter(counts.values())).classes)
    having = {name: [split for split, each in counts.items() if each.classes.get(name)] for name in names}
    if nowhere := [name for name in names if not having[name]]:
        out.append(f"classes without any image: {_names(nowhere)}")
    unseen = [name for name in names if having[name] and "train" not in having[name] and "train" not in empty]
    if unseen:
        where = {name: " and ".join(having[name]) for name in unseen}
        said = listed(f"{visible(name)} (in {where[name]} alone)" for name in unseen)
        out.append(f"classes that training never sees: {said}; they can only be scored wrong")
    for split in ("val", "test"):
        lacking = [name for name in names if having[name] and split not in having[name]]
        if lacking and split not in empty:
            out.append(
                f"classes without an image in {split}: {_names(lacking)}; scores on {split} are over "
                f"{len(names) - len(lacking) - len(nowhere)} of {len(names)} classes, F1 (macro) counts the others as 0"
            )
    return out


def _names(names: Iterable[str]) -> str:
    return listed(visible(name) for name in names)
