"""Which classes the fine-tuned networks confuse: confusion matrices, or F1 where an image may have several classes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from pipeline.core.console import counted
from pipeline.jobs.plan import Plan, PlannedRun
from pipeline.results.collect import Cell, predictions_of
from pipeline.results.figures import style
from pipeline.results.figures.publish import DrawnFigure, NothingToDraw, PlannedFigure
from pipeline.results.figures.series import FinishedRuns, Group, at_largest_fraction, groups

MAX_NUMBERED = 16  # classes; with more the numbers would not be legible
TITLE = 16  # characters of a panel's title that fit into an inch


def confusion(plan: Plan, cells: Sequence[Cell]) -> Iterator[PlannedFigure]:
    """A figure for each dataset and backbone, with a panel for each technique, at the largest label fraction."""
    for group in groups(cells):
        yield PlannedFigure(
            kind="confusion",
            name=f"confusion-{group.name}",
            dataset=group.dataset,
            paper="",
            draw=lambda group=group: _draw(plan, group),  # type: ignore[misc]
        )


def matrix(targets: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """How often images of a class (row) have their highest score for a class (column): int64 [classes, classes]."""
    out = np.zeros((targets.shape[1], targets.shape[1]), dtype=np.int64)
    np.add.at(out, (targets.argmax(axis=1), scores.argmax(axis=1)), 1)
    return out


def _draw(plan: Plan, group: Group) -> DrawnFigure:
    shown = [
        each
        for each in at_largest_fraction(plan, group)
        if all(planned.run["predictions"].exists() for planned in each.runs)
    ]
    if not shown:
        raise NothingToDraw("no fine-tune with predictions is done")
    runs = [planned.run for each in shown for planned in each.runs]
    single = all(run.result().task == "multi-class" for run in runs)
    figure, what = _matrices(shown) if single else _f1_bars(shown)
    figure.suptitle(f"{group.dataset} · {group.title} · {style.percent(shown[0].fraction)} labels")
    labels = f"{style.percent(shown[0].fraction)} of the labels"
    caption = f"{group.title} on the test part of {group.dataset} after fine-tuning on {labels}: "
    return DrawnFigure(figure, caption + what, [run.id for run in runs])


def _matrices(shown: list[FinishedRuns]) -> tuple[Figure, str]:
    classes = predictions_of(shown[0].runs[0].run).classes
    columns = 2 if len(shown) == 4 else min(len(shown), 3)
    rows = -(-len(shown) // columns)
    side = max(2.0, 0.5 * len(classes))
    figure = style.new_figure(1.9 + (side + 0.1) * columns, 1.2 + (side + 0.3) * rows, images=True)
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).flatten()
    apart = "\n" if max(len(each.series.title) for each in shown) + len(" (n = 1)") > TITLE * side else " "
    for axes, each in zip(panels, shown, strict=False):
        total = sum(_counts(planned) for planned in each.runs)
        assert isinstance(total, np.ndarray)
        heat = _draw_matrix(axes, total, classes)
        axes.set_title(f"{each.series.title}{apart}(n = {len(each.runs)})")
    for axes in panels[len(shown) :]:
        axes.set_visible(False)
    for number, axes in enumerate(panels[: len(shown)]):
        is_lowest = number + columns >= len(shown)
        axes.tick_params(labelbottom=is_lowest)
        axes.set_xlabel("predicted" if is_lowest else "")
        axes.set_ylabel("true" if number % columns == 0 else "")
    figure.colorbar(heat, ax=panels.tolist(), label="share of the true class", shrink=0.8, aspect=25)
    return figure, (
        "the share of each true class (row) that is predicted as each class (column), by the highest score, and below "
        "it the number of images, summed over n runs."
    )


def _counts(planned: PlannedRun) -> np.ndarray:
    predictions = predictions_of(planned.run)
    return matrix(predictions.targets, predictions.scores)


def _draw_matrix(axes: Axes, counts: np.ndarray, classes: Sequence[str]) -> AxesImage:
    totals = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, totals, out=np.zeros(counts.shape), where=totals > 0)
    heat = axes.imshow(shares, cmap=style.COUNTS, vmin=0, vmax=1)
    axes.grid(False)
    axes.set_xticks(range(len(classes)), classes, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(classes)), classes)
    axes.tick_params(length=0)
    for (row, column), count in np.ndenumerate(counts if len(classes) <= MAX_NUMBERED else np.empty((0, 0))):
        share = f"{shares[row, column]:.0%}"
        colour = "white" if shares[row, column] > 0.55 else style.INK
        if count:
            for text, up, size in ((share if share != "0%" else "<1%", 3.0, 7), (f"{count:,}", -5.0, 5.5)):
                axes.annotate(
                    text, (column, row), (0, up), textcoords="offset points", ha="center", va="center", color=colour,
                    size=size,
                )  # fmt: skip
    return heat


def _f1_bars(shown: list[FinishedRuns]) -> tuple[Figure, str]:
    scores = [[planned.run.result().metrics["per_class"] for planned in each.runs] for each in shown]
    classes = list(scores[0][0])
    support = {name: scores[0][0][name]["support"] for name in classes}
    figure = style.new_figure(max(5.4, 1.2 + 0.35 * len(classes) * len(shown)), 3.2)
    axes = figure.subplots()
    width = 0.8 / len(shown)
    for number, (each, runs) in enumerate(zip(shown, scores, strict=True)):
        f1 = np.array([[run[name]["f1"] for name in classes] for run in runs])
        deviation = f1.std(axis=0, ddof=1) if len(runs) > 1 else None
        axes.bar(
            np.arange(len(classes)) + (number - (len(shown) - 1) / 2) * width,
            f1.mean(axis=0),
            width * 0.92,
            yerr=deviation,
            capsize=2,
            error_kw={"elinewidth": 0.8, "ecolor": style.INK},
            color=each.series.style.colour,
            label=f"{each.series.title} (n = {len(each.runs)})",
        )
    axes.set_xticks(range(len(classes)), [f"{name}\n{counted(support[name], 'image')}" for name in classes])
    axes.tick_params(axis="x", length=0)
    axes.grid(axis="x", visible=False)
    axes.set_ylabel("F1 at 0.5")
    axes.set_ylim(0, 1)
    style.legend(figure, axes.get_legend_handles_labels()[0])
    return figure, "F1 of each class, with 0.5 as the threshold: mean and standard deviation over n runs."
