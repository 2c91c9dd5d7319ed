"""The data section of a report: what the shards of each dataset say of its images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pipeline.data.shards import facts
from pipeline.data.shards.counts import counts_of
from pipeline.data.shards.index import shards_of
from pipeline.jobs.plan import Plan
from pipeline.results.tables import Table
from pipeline.runs.spec import DatasetRef


@dataclass(frozen=True)
class DataSection:
    """One dataset: images by class and part with what is known of them, and the sheet of its nearest pairs."""

    table: Table
    pairs: Path | None
    """The sheet's path, where there is one; it shows single images."""


def sections(plan: Plan) -> list[DataSection]:
    """A section for each dataset of the plan that has shards."""
    sizes = {spec.dataset: spec.image_size for spec in plan.wanted}
    return [
        _section(plan, info.title, info.ref, sizes[info.ref])
        for info in plan.datasets
        if info.ref.fingerprint and info.ref in sizes
    ]


def _section(plan: Plan, title: str, ref: DatasetRef, size: int) -> DataSection:
    caption = f"{title}: data, images by class and part"
    try:
        shards = shards_of(Path(plan.cluster.shards), ref, size=size)
        notes = facts.lines(shards)
    except (ValueError, FileNotFoundError) as error:
        return DataSection(Table(None, caption, 1, ("",), [], (str(error),)), None)
    counts = counts_of(shards.manifest)
    rows = [tuple(map(str, row)) for row in facts.count_rows(counts)]
    pairs = shards.folder / facts.SHEET
    notes += [f"the pairs nearest the limit of what counts as a twin: {pairs}"] if pairs.exists() else []
    return DataSection(
        Table(None, caption, 1, ("", *counts), rows, tuple(notes)),
        pairs if pairs.exists() else None,
    )
