"""The data section of a report: what the shards of each dataset say of its images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.data.shards import facts
from pipeline.data.shards.counts import SplitCounts, counts_of
from pipeline.data.shards.index import shards_of
from pipeline.jobs.plan import Plan
from pipeline.results.tables import Table
from pipeline.runs.spec import DatasetRef


@dataclass(frozen=True)
class DataSection:
    """One dataset: images by class and part with what is known of them, and the sheet of its nearest pairs."""

    title: str
    ref: DatasetRef
    split: str
    """`image` or `grouped`; empty where the shards are not at hand."""
    counts: Mapping[str, SplitCounts]
    """Images by part; empty where the shards are not at hand."""
    lines: Sequence[str]
    """What is known of the split, of leaks and of what was left out, one sentence each; or why nothing is."""
    pairs: Path | None
    """The sheet's path, where there is one; it shows single images."""
    leaks: Sequence[str] = ()
    """Of `lines`, those on groups, on twins of test images and on what was left out."""

    @property
    def table(self) -> Table:
        """Images by class and part."""
        caption = f"{self.title}: data, images by class and part"
        rows = [tuple(map(str, row)) for row in facts.count_rows(self.counts)] if self.counts else []
        shown = []
        if self.pairs:  # without the folders above, which may name a person
            named = f"{self.pairs.parent.name}/{self.pairs.name}"
            shown = [f"the pairs nearest the limit of what counts as a twin: {named}, in the folder of shards"]
        return Table(None, caption, 1, ("", *self.counts), rows, (*self.lines, *shown))


def sections(plan: Plan) -> list[DataSection]:
    """A section for each dataset of the plan that has shards."""
    sizes = {spec.dataset: spec.image_size for spec in plan.wanted}
    return [
        _section(plan, info.title, info.ref, sizes[info.ref])
        for info in plan.datasets
        if info.ref.fingerprint and info.ref in sizes
    ]


def _section(plan: Plan, title: str, ref: DatasetRef, size: int) -> DataSection:
    try:
        shards = shards_of(Path(plan.cluster.shards), ref, size=size)
        lines, leaks = facts.lines(shards), facts.leaks(shards)
    except (ValueError, FileNotFoundError) as error:
        return DataSection(title, ref, "", {}, (str(error),), None)
    pairs = shards.folder / facts.SHEET
    split = str(shards.manifest["settings"].get("split", ""))
    return DataSection(title, ref, split, counts_of(shards.manifest), lines, pairs if pairs.exists() else None, leaks)
