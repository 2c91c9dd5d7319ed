"""What headers say of the images of a listing: their labels by a table, their patients, and the window of a series."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import numpy as np

from pipeline.core.console import counted
from pipeline.data.formats import dicom
from pipeline.data.formats.levels import percentiles_of
from pipeline.data.formats.reading import Reading, Secret
from pipeline.data.records import Dataset, Listing
from pipeline.data.shards.raw import Progress, RawFiles, RawImage, read_files

NONE_KNOWN: Mapping[str, tuple[float, float]] = MappingProxyType({})


def read_listing(
    dataset: Dataset, root: Path, reading: Reading, secret: Secret, *, workers: int, progress: Progress
) -> tuple[Listing, RawFiles]:
    """List the files under `root` and read each; raises `ValueError` if they cannot be listed."""
    listing = dataset.listing(root)
    raw = read_files(listing.records, reading, secret, workers=workers, progress=progress)
    listing = _with_labels(raw, listing, secret)
    raw.images = with_patients(raw.images)
    return listing, raw


def with_ends(
    usable: Sequence[RawImage], reading: Reading, known: Mapping[str, tuple[float, float]] = NONE_KNOWN
) -> list[RawImage]:
    """Images whose window is between percentiles get the same ones in a whole series: those `known`, or of `usable`.

    So it comes after all refusals: what is not written must not change what is.
    """
    by_series: dict[str, dict[Path, np.ndarray]] = {}
    for image in usable:
        if image.found is not None and image.found.values is not None and series_of(image) not in known:
            by_series.setdefault(series_of(image), {})[image.source.path] = image.found.values
    chosen = percentiles_of(reading.window)
    ends = dict(known)
    for series, values in by_series.items():
        low, high = np.percentile(np.concatenate(list(values.values())), (chosen.low, chosen.high))
        ends[series] = (float(low), float(high))
    return [
        image
        if image.found is None or image.found.values is None
        else replace(image, source=image.source._replace(ends=ends[series_of(image)]))
        for image in usable
    ]


def series_of(image: RawImage) -> str:
    """The series that an image is of; without one its file."""
    return image.found.ids.get("series", str(image.source.path)) if image.found else ""


def _with_labels(raw: RawFiles, listing: Listing, secret: Secret) -> Listing:
    """Give the images the labels of the listing's table by what their headers say; returns the listing without it."""
    if (table := listing.by_header) is None:
        return listing
    rows = {secret.hash(table.level, id): row for id, row in table.rows.items()}
    kept, wrong, met = [], {}, set()
    for image in raw.images:
        id = image.found.ids.get(table.level) if image.found else None
        row = rows.get(id) if id else None
        if id and row:
            met.add(id)
            if row.problem:
                wrong[image.source.path] = replace(image.record, part=(), problem=row.problem)
                continue
            group = row.group or image.record.group
            image = replace(image, record=replace(image.record, labels=row.labels, split=row.split, group=group))
        kept.append(image)
    raw.images = kept
    raw.problems += wrong.values()
    notes = listing.notes
    if lacking := len(rows) - len(met):
        notes += (f"{counted(lacking, 'row')} of the table of labels: no file is of its {table.level}",)
    return replace(listing, by_header=None, notes=notes)


def with_patients(found: Sequence[RawImage]) -> list[RawImage]:
    """Files that share a patient, a study or a series are one group, also where a header names no patient.

    It is called by its patient; without one by its study, then by its series.
    """
    above: dict[str, str] = {}

    def top(id: str) -> str:
        while (next := above.setdefault(id, id)) != id:
            above[id] = id = above[next]
        return id

    levels: dict[str, int] = {}
    for image in found:
        known = image.found.ids if image.found else {}
        ids = [known[name] for name in dicom.GROUPING if name in known]
        levels |= {known[name]: level for level, name in enumerate(dicom.GROUPING) if name in known}
        for id in ids[1:]:
            above[top(id)] = top(ids[0])
    names: dict[str, str] = {}
    for id in sorted(levels, key=lambda id: (levels[id], id)):
        names.setdefault(top(id), id)
    out = []
    for image in found:
        own = image.found.group if image.found else None
        if image.found and own in levels:
            group = names[top(own)]
            record = replace(image.record, group=group) if image.record.group == own else image.record
            image = replace(image, record=record, found=replace(image.found, group=group))
        out.append(image)
    return out
