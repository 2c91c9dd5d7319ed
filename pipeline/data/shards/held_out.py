"""Which new images may not be added to shards: their patient, lesion or twin is in test or val, which stay as they are.

That depends on nothing but the image and the parts held out, and not on what else is added.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pipeline.data import twins
from pipeline.data.formats.files import Source
from pipeline.data.records import Record
from pipeline.data.shards import duplicates
from pipeline.data.shards.index import Shards
from pipeline.data.shards.keys import groups_of, is_of_header
from pipeline.data.shards.raw import Progress, RawImage
from pipeline.data.shards.transcode import ShardSettings

HELD_OUT = ("test", "val")


class Groups:
    """What is known of lesions and patients: which groups of the shards each group of the raw folder is."""

    def __init__(self, stored: Sequence[tuple[Record, Mapping[str, Any]]], rows: Sequence[Mapping[str, Any]]) -> None:
        self.held_out = {
            row["group"]: part for part in reversed(HELD_OUT) for row in rows if row["split"] == part and row["group"]
        }
        self.every = {row["group"] for row in rows}
        self.of: dict[str, set[str]] = {}
        for record, row in stored:
            if record.group is not None and row["group"] is not None:
                self.of.setdefault(record.group, set()).add(row["group"])

    def known(self, image: RawImage) -> set[str]:
        """The groups of the shards that an image's group is; one of a header may be called by a study or a series."""
        group = image.record.group
        if group is None:
            return set()
        ids = image.found.ids.values() if image.found and is_of_header(image) else ()
        return self.of.get(group, set()) | ({group, *ids} & self.every)

    def part(self, image: RawImage) -> str | None:
        """Test or val if an image of its group is there."""
        parts = {self.held_out.get(group) for group in self.known(image)}
        return next((part for part in HELD_OUT if part in parts), None)

    def of_new(self, new: Sequence[RawImage], *, keep_names: bool) -> list[str | None]:
        """The group of each new image: the one that the shards have, else a new one."""
        own = groups_of(new, keep_names=keep_names)
        return [min(self.known(image), default=group) for image, group in zip(new, own, strict=True)]


def leaks(
    new: Sequence[RawImage],
    groups: Groups,
    shards: Shards,
    settings: ShardSettings,
    workers: int,
    progress: Progress,
    *,
    keep_leaks: bool,
) -> dict[int, str]:
    """The new images that are left out, by their numbers, and why, in words that many share."""
    out = {
        i: f"new images that are given to {image.record.split}, which stays as it is"
        for i, image in enumerate(new)
        if image.record.split in HELD_OUT
    }
    if settings.split != "grouped":
        return out
    for i, image in enumerate(new):
        if i not in out and (part := groups.part(image)):
            out[i] = f"new images of a lesion or patient in {part}"
    rest = [i for i in range(len(new)) if i not in out]
    if rest and not keep_leaks:
        parts = _parts_of_twins([new[i].source for i in rest], shards, settings, workers=workers, progress=progress)
        out |= {i: f"new images with a twin in {part}" for i, part in zip(rest, parts, strict=True) if part}
    return out


def _parts_of_twins(
    sources: Sequence[Source], shards: Shards, settings: ShardSettings, *, workers: int, progress: Progress
) -> list[str | None]:
    """For each raw image test or val, if a stored image there is its twin; as where a whole dataset is split."""
    held_out = {part: shards.of_split(part) for part in HELD_OUT}
    rows = [row for part in HELD_OUT for row in held_out[part]]
    raw, readable = duplicates.raw_thumbnails(sources, settings, workers=workers, progress=progress)
    thumbnails = np.concatenate([duplicates.stored_thumbnails(shards, rows, progress), raw[readable]])
    found = twins.find_twins(thumbnails, twins.ALIKE - duplicates.MARGIN)
    out: list[str | None] = [None] * len(sources)
    for part in reversed(HELD_OUT):
        chosen = np.zeros(len(thumbnails), bool)
        start = 0 if part == HELD_OUT[0] else len(held_out[HELD_OUT[0]])
        chosen[start : start + len(held_out[part])] = True
        for i, twin in zip(np.flatnonzero(readable), found.twin_in(chosen)[len(rows) :], strict=True):
            out[i] = part if twin >= 0 else out[i]
    return out
