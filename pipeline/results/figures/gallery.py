"""All figures of a grid by kind, drawn into one folder with their list; nothing heavy is imported before drawing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipeline.jobs.plan import Plan
    from pipeline.results.collect import Cell
    from pipeline.results.figures.book import Made, Sheet

KINDS = {  # in the order of figures.json
    "samples": "test images of every class *",
    "pretraining": "loss and collapse monitor of the pretraining runs",
    "finetuning": "validation loss and metric of the fine-tunes",
    "label-efficiency": "test metric over label fraction, the paper's beside ours",
    "confusion": "confusion matrices, or the F1 of each class",
    "attention": "attention maps of one test image *",
    "attention-mean": "attention maps averaged over test images",
    "first-layer": "the first convolution's output for one test image *",
    "features": "the first five convolutions' outputs for one test image *",
}


def draw(
    plan: Plan,
    cells: Sequence[Cell],
    folder: Path,
    *,
    kinds: Sequence[str] = tuple(KINDS),
    with_images: bool = False,
    rollout: bool = False,
    watch: Callable[[list[Sheet]], Iterable[Sheet]] = iter,
) -> Made:
    """Draw these kinds into `folder` and write its figures.json; `watch` passes the sheets on, under a bar, say."""
    from pipeline.results.figures import book, confusion, curves, labels, maps, samples

    drawn = {
        "samples": samples.samples,
        "pretraining": curves.pretraining,
        "finetuning": curves.finetuning,
        "label-efficiency": labels.label_efficiency,
        "confusion": confusion.confusion,
        "attention": lambda plan, cells: maps.attention(plan, cells, rollout=rollout),
        "attention-mean": lambda plan, cells: maps.attention_mean(plan, cells, rollout=rollout),
        "first-layer": maps.first_layer,
        "features": maps.features,
    }
    sheets = [sheet for kind in KINDS if kind in kinds for sheet in drawn[kind](plan, cells)]
    made = book.make(watch(sheets), folder, with_images=with_images)
    head = {"grid": plan.grid, "preset": plan.preset.name}
    book.write_list(folder, made, head=head, kinds=kinds, order=list(KINDS))
    return made
