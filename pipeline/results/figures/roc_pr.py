"""ROC and precision–recall curves on the test images, each class against the rest, averaged over seeds."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from pipeline.jobs.plan import Plan
from pipeline.results.collect import Cell
from pipeline.results.figures import style
from pipeline.results.figures.publish import DrawnFigure, NothingToDraw, PlannedFigure
from pipeline.results.figures.series import Group, groups, with_predictions
from pipeline.results.ranking import GRID, Curve, mean_curves, precision_recall, ranking, roc
from pipeline.runs.predictions import Predictions

MAX_CLASSES = 14  # with more only the mean over the classes is drawn
COLOURS = (style.BLUE, style.ORANGE, style.GREEN, style.RED, style.PURPLE, style.SKY, style.GREY)
STYLES: list[tuple[str, Any]] = [(colour, line) for line in ("-", "--") for colour in COLOURS]


def roc_pr(plan: Plan, cells: Sequence[Cell], *, specificity: float) -> Iterator[PlannedFigure]:
    """A figure for each dataset and backbone, with a column for each technique, at the largest label fraction."""
    for group in groups(cells):
        yield PlannedFigure(
            kind="roc-pr",
            name=f"roc-pr-{group.name}",
            dataset=group.dataset,
            paper="",
            draw=lambda group=group: _draw(plan, group, specificity),  # type: ignore[misc]
        )


def _draw(plan: Plan, group: Group, specificity: float) -> DrawnFigure:
    shown = with_predictions(plan, group)
    if not shown:
        raise NothingToDraw("no fine-tune with predictions is done")
    figure = style.new_figure(1.0 + 2.3 * len(shown), 5.6)
    panels = figure.subplots(2, len(shown), sharex=True, sharey=True, squeeze=False)
    drawn: set[int] = set()
    for (above, below), (each, cell) in zip(panels.T, shown, strict=True):
        seeds = list(cell.predictions.values())
        classes = seeds[0].classes
        drawn |= _draw_curves(above, seeds, roc)
        _draw_curves(below, seeds, precision_recall)
        ranked = [found for one in seeds if (found := ranking(one, specificity))]
        above.set_title(f"{each.series.title} (n = {len(seeds)})")
        if ranked:
            above.set_title(f"{above.get_title()}\nmean AUROC {np.mean([one.auroc for one in ranked]):.3f}")
            below.set_title(f"mean average precision {np.mean([one.average_precision for one in ranked]):.3f}")
        above.axvline(1 - specificity, color=style.GREY, linewidth=0.8, linestyle=":")
        above.plot([0, 1], [0, 1], color="#BBBBBB", linewidth=0.8)
        above.set_xlabel("false positive rate")
        below.set_xlabel("recall")
        for axes in (above, below):
            axes.tick_params(labelbottom=True)
            axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.02), aspect="equal")
    panels[0, 0].set_ylabel("true positive rate")
    panels[1, 0].set_ylabel("precision")
    handles = [Line2D([], [], color=style.INK, linewidth=2.2, label="mean over classes")]
    if len(drawn) <= MAX_CLASSES:
        looks = dict(zip(sorted(drawn), itertools.cycle(STYLES), strict=False))
        handles += [Line2D([], [], color=c, linestyle=line, label=classes[n]) for n, (c, line) in looks.items()]
    handles.append(Line2D([], [], color=style.GREY, linestyle=":", linewidth=0.8, label=f"specificity {specificity:g}"))
    style.legend(figure, handles)
    labels = style.percent(shown[0][0].fraction)
    figure.suptitle(f"{group.dataset} · {group.title} · {labels} labels")
    caption = (
        f"{group.title} on the test part of {group.dataset} after fine-tuning on {labels} of the labels: ROC curves "
        "(above) and precision-recall curves (below) of each class against the rest, averaged over n seeds at the same "
        "false positive rate or recall, and their mean over the classes."
    )
    return DrawnFigure(figure, caption, [planned.run.id for each, _ in shown for planned in each.runs])


def _draw_curves(axes: Axes, seeds: Sequence[Predictions], curve: Curve) -> set[int]:
    """Draw the curve of each class and their mean; returns the classes that have one."""
    curves = mean_curves(seeds, curve)
    if len(curves) <= MAX_CLASSES:
        for values, (colour, line) in zip(curves.values(), itertools.cycle(STYLES), strict=False):
            axes.plot(GRID, values, line, color=colour, linewidth=1.0, alpha=0.9)
    if curves:
        axes.plot(GRID, np.mean(list(curves.values()), axis=0), color=style.INK, linewidth=2.2)
    return set(curves)
