"""How often scores are right on the test images: as they are stored, and with the temperature of validation."""

from __future__ import annotations

import functools
import operator
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from pipeline.jobs.plan import Plan
from pipeline.learn import calibration
from pipeline.learn.calibration import Reliability
from pipeline.results.collect import Cell
from pipeline.results.figures import style
from pipeline.results.figures.publish import DrawnFigure, NothingToDraw, PlannedFigure
from pipeline.results.figures.series import Group, groups, with_predictions
from pipeline.results.quality import reliabilities

LOOKS: dict[str, tuple[str, str, Any]] = {
    "stored scores": (style.ORANGE, "s", "--"),
    "calibrated": (style.BLUE, "o", "-"),
}
DIAGONAL = "#BBBBBB"


def reliability(plan: Plan, cells: Sequence[Cell]) -> Iterator[PlannedFigure]:
    """A figure for each dataset and backbone, with a panel for each technique, at the largest label fraction."""
    for group in groups(cells):
        yield PlannedFigure(
            kind="reliability",
            name=f"reliability-{group.name}",
            dataset=group.dataset,
            paper="",
            draw=lambda group=group: _draw(plan, group),  # type: ignore[misc]
        )


def _draw(plan: Plan, group: Group) -> DrawnFigure:
    shown = with_predictions(plan, group)
    if not shown:
        raise NothingToDraw("no fine-tune with predictions is done")
    figure = style.new_figure(1.0 + 2.3 * len(shown), 3.7)
    panels = figure.subplots(1, len(shown), sharey=True, squeeze=False)[0]
    for axes, (each, cell) in zip(panels, shown, strict=True):
        axes.plot([0, 1], [0, 1], color=DIAGONAL, linewidth=0.8)
        parts = [seeds for seeds in reliabilities(cell) if seeds]
        for seeds, look in zip(parts, LOOKS.values(), strict=False):
            _draw_bins(axes, functools.reduce(operator.add, seeds), *look)
        text = " → ".join(f"{np.mean([each.ece for each in seeds]):.3f}" for seeds in parts)
        text += "" if len(parts) == len(LOOKS) else " (not calibrated)"
        axes.set_title(f"{each.series.title} (n = {len(cell.predictions)})\nECE {text}")
        axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal", xlabel="score")
    panels[0].set_ylabel("share that is right")
    handles = [
        Line2D([], [], color=colour, marker=marker, linestyle=line, label=name)
        for name, (colour, marker, line) in LOOKS.items()
    ]
    style.legend(figure, [*handles, Line2D([], [], color=DIAGONAL, label="as often right as scored")])
    labels = style.percent(shown[0][0].fraction)
    figure.suptitle(f"{group.dataset} · {group.title} · {labels} labels")
    single = shown[0][1].task == "multi-class"
    what = "the highest score of each image" if single else "every score of every image"
    caption = (
        f"{group.title} on the test part of {group.dataset} after fine-tuning on {labels} of the labels: "
        f"{what} in {calibration.BINS} bins of equal width, the images of n seeds together, and how often it is right; "
        "as stored, and with the temperature that each run fitted on its validation images (ECE: mean over seeds). "
        "Larger marks are of more scores."
    )
    return DrawnFigure(figure, caption, [planned.run.id for each, _ in shown for planned in each.runs])


def _draw_bins(axes: Axes, part: Reliability, colour: str, marker: str, line: Any) -> None:
    having = part.count > 0
    counts = part.count[having]
    x, y = part.score[having] / counts, part.true[having] / counts
    axes.plot(x, y, line, color=colour, linewidth=1)
    sizes = 8 + 60 * np.sqrt(counts / counts.max())
    axes.scatter(x, y, s=sizes, color=colour, marker=marker, alpha=0.8, linewidths=0, clip_on=False, zorder=3)
