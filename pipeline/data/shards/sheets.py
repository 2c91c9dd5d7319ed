"""A drawing of each slide with its tiles, for a person to see what was taken for tissue."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from pipeline.core import files
from pipeline.data.formats import kinds
from pipeline.data.formats.files import draw_tiles
from pipeline.data.formats.reading import Part
from pipeline.data.images import BadImage
from pipeline.data.shards.plan import ShardPlan
from pipeline.data.shards.raw import Progress
from pipeline.data.workers import Workers

SLIDES = "slides"  # in a shard folder; each file has the first digits of its slide's checksum


def draw_slides(folder: Path, plan: ShardPlan, *, workers: int, progress: Progress) -> None:
    """Write one PNG for each slide of the plan; a slide that cannot be drawn has none."""
    tiles: dict[tuple[Path, str], list[Part]] = {}
    for sample in plan.samples:
        if sample.source.kind == kinds.SLIDE and sample.record.part:
            tiles.setdefault((sample.record.path, sample.checksum), []).append(sample.record.part)
    if not tiles:
        return
    tasks = [(path, parts) for (path, _), parts in tiles.items()]
    with Workers(workers) as pool:
        answers = pool.map(partial(draw_tiles, reading=plan.settings.reading), tasks)
        for (_, checksum), drawn in zip(tiles, progress(answers, total=len(tasks), what="drawing slides"), strict=True):
            if not isinstance(drawn, BadImage):
                with files.publish(folder / SLIDES / f"{checksum[:12]}.png") as file:
                    file.write(drawn)
