"""What the maps of one dataset and backbone share: the runs that they show, their networks and the networks' input.

Networks are rebuilt from their runs' weights and computed on the CPU in float32: the same runs give the same maps,
whatever device trained them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from pipeline.data.shards.index import Shards
from pipeline.jobs.plan import Plan, PlannedRun
from pipeline.results.collect import Cell
from pipeline.results.figures import style
from pipeline.results.figures.publish import DrawnFigure, NothingToDraw, PlannedFigure
from pipeline.results.figures.samples import shards_for
from pipeline.results.figures.series import (
    FinishedRuns,
    Group,
    at_largest_fraction,
    finetune_spec,
    groups,
    one_run_each,
    seeds,
)

if TYPE_CHECKING:
    from torch import Tensor, nn

SINGLE_DATASET = "autoimmune"  # the dataset of the paper's maps of one image, Figures 2, 3 and 5


def plan_figures(
    plan: Plan, cells: Sequence[Cell], kind: str, arm: str, figure: str, draw: Callable[[Group], DrawnFigure]
) -> Iterator[PlannedFigure]:
    """A figure of one test image for each dataset and backbone of this arm; figure: the paper's."""
    for group in groups(cells):
        if group.arm == arm:
            yield PlannedFigure(
                kind=kind,
                name=f"{kind}-{group.name}",
                dataset=group.dataset,
                paper=figure if group.dataset_name == SINGLE_DATASET else f"as {figure}",
                draw=lambda group=group: draw(group),  # type: ignore[misc]
                images=True,
            )


def chosen_runs(plan: Plan, group: Group) -> tuple[list[FinishedRuns], list[PlannedRun], Shards]:
    """The techniques that have finished runs, one run of each, and the shards on which they were tested."""
    shown = [
        each for each in at_largest_fraction(plan, group) if each.series.method != "frozen"
    ]  # no network of its own
    if not shown:
        raise NothingToDraw("no fine-tune is done")
    runs = one_run_each(shown)
    for planned in runs:
        if not planned.run["weights"].exists():
            raise NothingToDraw(f"there is no {planned.run['weights']}; the network cannot be rebuilt")
    spec = finetune_spec(runs[0])
    return shown, runs, shards_for(plan, spec.dataset, spec.image_size)


def network_of(planned: PlannedRun, shards: Shards) -> nn.Module:
    from pipeline.models.info import FINETUNED
    from pipeline.models.network import rebuild

    planned.run.check("weights", "figures")
    return rebuild(planned.run, FINETUNED, outputs=len(shards.classes))


def network_input(pixels: np.ndarray, planned: PlannedRun) -> Tensor:
    """The network's input for images uint8 [n, h, w, 3], without augmentation: float32 [n, 3, h, w]."""
    import torch

    from pipeline.learn.augment import normalise, unit

    return normalise(unit(torch.from_numpy(pixels)), finetune_spec(planned).augment)


def training_text(shown: Sequence[FinishedRuns], runs: Sequence[PlannedRun]) -> str:
    return f"fine-tuned on {style.percent(shown[0].fraction)} of the labels ({seeds(runs)})"
