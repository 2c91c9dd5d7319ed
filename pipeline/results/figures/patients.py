"""By patient or lesion: each fine-tune's score over test images next to that over their groups, with intervals."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from matplotlib.lines import Line2D

from pipeline.jobs.plan import Plan
from pipeline.results import patients
from pipeline.results.collect import Cell
from pipeline.results.figures import style
from pipeline.results.figures.publish import DrawnFigure, NothingToDraw, PlannedFigure
from pipeline.results.figures.series import groups
from pipeline.results.resampled import Interval
from pipeline.results.texts import METRIC_TITLES

SHIFT = 0.14  # of the two points of a row, up and down


def by_group(plan: Plan, cells: Sequence[Cell]) -> Iterator[PlannedFigure]:
    """A figure for each dataset: the cells of the largest label fraction, a row each."""
    found = groups(cells)
    for dataset in dict.fromkeys(group.dataset for group in found):
        series = [(group.title, each) for group in found if group.dataset == dataset for each in group.series]
        largest = [(f"{each.title} · {title}", each.cells[max(each.cells)]) for title, each in series]
        yield PlannedFigure(
            kind="by-group",
            name=f"by-group-{dataset}",
            dataset=dataset,
            paper="",
            draw=lambda largest=largest: _by_group(plan, largest),  # type: ignore[misc]
        )


def _by_group(plan: Plan, named: Sequence[tuple[str, Cell]]) -> DrawnFigure:
    found = patients.compare([cell for _, cell in named])
    if not found:
        raise NothingToDraw("no fine-tune is done whose test images have groups of several images")
    titles = {id(cell): title for title, cell in named}
    figure = style.new_figure(6.4, 1.2 + 0.42 * len(found))
    axes = figure.subplots()
    kinds = (("by image", style.GREY, "white", -SHIFT), ("by patient or lesion", style.BLUE, style.BLUE, SHIFT))
    for row, each in enumerate(found):
        values: tuple[tuple[list[float], Interval], ...] = (
            (each.by_image, each.image_interval),
            (each.by_group, each.group_interval),
        )
        for (scores, ends), (_, colour, fill, shift) in zip(values, kinds, strict=True):
            if scores:
                axes.plot(np.mean(scores), row + shift, "o", color=colour, markerfacecolor=fill, zorder=3)
            if ends is not None:
                axes.plot(ends, [row + shift] * 2, color=colour, linewidth=1.2)
    axes.set_yticks(range(len(found)), [f"{titles[id(each.cell)]} ({each.choice.rule})" for each in found])
    axes.set_ylim(len(found) - 0.5, -0.5)
    metric = METRIC_TITLES[found[0].cell.metric]
    axes.set_xlabel(f"test {metric}")
    axes.grid(axis="y", visible=False)
    handles = [
        Line2D([], [], color=colour, marker="o", markerfacecolor=fill, label=name) for name, colour, fill, _ in kinds
    ]
    style.legend(figure, handles)
    first = found[0]
    figure.suptitle(first.cell.dataset)
    caption = (
        f"Test {metric} on {first.cell.dataset} over {first.images} images and over their {first.groups} patients or "
        "lesions: mean over seeds, with the 95 % interval over resampled groups. In brackets: how a group's score "
        "follows from those of its images, chosen on validation."
    )
    return DrawnFigure(figure, caption, [e.cell.runs[seed].id for e in found for seed in e.cell.results])
