"""All figures of a grid, by kind, drawn into one folder with their list; nothing heavy is imported before drawing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipeline.jobs.plan import Plan
    from pipeline.results.collect import Cell
    from pipeline.results.figures.publish import FigureList, PlannedFigure

SPECIFICITY = 0.9  # ASSUMED; of the sensitivities that a report gives
KINDS = {  # in the order of figures.json
    "samples": "test images of every class *",
    "pretraining": "loss and collapse monitor of the pretraining runs",
    "probes": "k-NN and linear probe on frozen features over the epochs of pretraining",
    "finetuning": "validation loss and metric of the fine-tunes",
    "label-efficiency": "test metric over label fraction, the paper's next to ours",
    "confusion": "confusion matrices, or the F1 of each class",
    "by-group": "test metric by patient or lesion next to that by image, with intervals",
    "roc-pr": "ROC and precision-recall curves, each class against the rest",
    "reliability": "how often scores are right, as stored and calibrated",
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
    specificity: float = SPECIFICITY,
    watch: Callable[[list[PlannedFigure]], Iterable[PlannedFigure]] = iter,
) -> FigureList:
    """Draw these kinds into `folder` and write its figures.json.

    specificity: the line in ROC curves. watch: passes the planned figures on, for example under a progress bar.
    """
    from pipeline.results.figures import (
        attention,
        confusion,
        curves,
        features,
        labels,
        patients,
        publish,
        reliability,
        roc_pr,
        samples,
    )

    plan_kind = {
        "samples": samples.samples,
        "pretraining": curves.pretraining,
        "probes": curves.probes,
        "finetuning": curves.finetuning,
        "label-efficiency": labels.label_efficiency,
        "confusion": confusion.confusion,
        "by-group": patients.by_group,
        "roc-pr": lambda plan, cells: roc_pr.roc_pr(plan, cells, specificity=specificity),
        "reliability": reliability.reliability,
        "attention": lambda plan, cells: attention.attention(plan, cells, rollout=rollout),
        "attention-mean": lambda plan, cells: attention.attention_mean(plan, cells, rollout=rollout),
        "first-layer": features.first_layer,
        "features": features.features,
    }
    planned = [figure for kind in KINDS if kind in kinds for figure in plan_kind[kind](plan, cells)]
    drawn = publish.draw_all(watch(planned), folder, with_images=with_images)
    head = {"grid": plan.grid, "preset": plan.preset.name}
    publish.write_list(folder, drawn, head=head, kinds=kinds, order=list(KINDS))
    return drawn
