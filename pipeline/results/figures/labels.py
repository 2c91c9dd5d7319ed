"""Label efficiency: test scores over the fraction of labels, ours and the paper's (Tables 3 to 6)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from pipeline.jobs.plan import Plan
from pipeline.results.collect import Cell
from pipeline.results.figures import style
from pipeline.results.figures.publish import DrawnFigure, NothingToDraw, PlannedFigure
from pipeline.results.figures.series import Group, Series, groups, seed_counts
from pipeline.results.texts import METRIC_TITLES


def label_efficiency(plan: Plan, cells: Sequence[Cell]) -> Iterator[PlannedFigure]:
    """Test score over label fraction: a figure for each dataset, a panel for each backbone."""
    found = groups(cells)
    for dataset in dict.fromkeys(group.dataset for group in found):
        members = [group for group in found if group.dataset == dataset]
        yield PlannedFigure(
            kind="label-efficiency",
            name=f"label-efficiency-{dataset}",
            dataset=dataset,
            paper="",
            draw=lambda members=members: _label_efficiency(members),  # type: ignore[misc]
        )


def _label_efficiency(found: list[Group]) -> DrawnFigure:
    members = [group for group in found if any(cell.results for s in group.series for cell in s.cells.values())]
    if not members:
        raise NothingToDraw("no fine-tune is done")
    columns = min(len(members), 3)
    rows = -(-len(members) // columns)
    figure = style.new_figure(0.9 + 2.9 * columns, 0.7 + 2.6 * rows)
    panels = figure.subplots(rows, columns, sharey=True, squeeze=False).flatten()
    labels: dict[str, Line2D] = {}
    printed = False
    for axes, group in zip(panels, members, strict=False):
        for number, series in enumerate(group.series):
            printed |= _draw_series(axes, series, shift=1 + 0.05 * (number - (len(group.series) - 1) / 2))
            marks = series.style
            labels.setdefault(series.title, Line2D([], [], color=marks.colour, marker=marks.marker, label=series.title))
        fractions = sorted({fraction for series in group.series for fraction in series.cells})
        axes.set_xscale("log")
        axes.set_xlim(fractions[0] / 1.5, fractions[-1] * 1.5)
        axes.xaxis.set_major_locator(FixedLocator(fractions))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: style.percent(value)))
        axes.set_xlabel("labels")
        axes.set_title(f"{group.title} ({group.arm})")
    for axes in panels[len(members) :]:
        axes.set_visible(False)
    cells = [cell for group in members for series in group.series for cell in series.cells.values()]
    metric = METRIC_TITLES[cells[0].metric]
    panels[0].set_ylabel(f"test {metric}")
    low, high = panels[0].get_ylim()
    panels[0].set_ylim(max(low, 0.0), min(high, 1.01))  # a deviation may pass these bounds, a score cannot
    handles = list(labels.values())
    if printed:
        handles.append(
            Line2D([], [], color=style.INK, linestyle="--", marker="o", markerfacecolor="white", label="paper")
        )
    style.legend(figure, handles)
    dataset = members[0].dataset
    figure.suptitle(dataset)
    caption = (
        f"Test {metric} on {dataset} over the fraction of the training labels used: mean and standard deviation over "
        f"seeds ({seed_counts(cells)})."
    )
    if printed:
        table = next(cell.printed.table for cell in cells if cell.printed)
        caption += (
            f" Dashed lines with hollow markers: the paper's Table {table} (ResNet-50 and ViT-B/16, ImageNet weights, "
            "384 pixels)."
        )
    runs = [cell.runs[seed].id for cell in cells for seed in cell.results]
    return DrawnFigure(figure, caption, runs)


def _draw_series(axes: Axes, series: Series, *, shift: float) -> bool:
    """Draw our points and the printed ones, at label fractions times `shift`; returns whether any are printed."""
    marks = series.style
    ours = [(f, c.mean(c.metric), c.deviation(c.metric)) for f, c in sorted(series.cells.items())]
    points = [
        (fraction * shift, mean, np.nan if deviation is None else deviation)
        for fraction, mean, deviation in ours
        if mean is not None
    ]
    if points:
        x, y, spread = zip(*points, strict=True)
        axes.errorbar(x, y, yerr=spread, color=marks.colour, marker=marks.marker, capsize=2.5, elinewidth=1)
    theirs = [(f * shift, c.printed.value, c.printed.spread) for f, c in sorted(series.cells.items()) if c.printed]
    if theirs:
        x, y, spread = zip(*theirs, strict=True)
        axes.errorbar(
            x, y, yerr=spread, color=marks.colour, marker=marks.marker, markerfacecolor="white", linestyle="--",
            linewidth=1, elinewidth=0.8, capsize=2, alpha=0.8,
        )  # fmt: skip
    return bool(theirs)
