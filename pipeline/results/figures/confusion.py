"""What the fine-tuned networks take for what: confusion matrices, or for several labels the F1 of each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from pipeline.jobs.plan import Plan, PlannedRun
from pipeline.results.collect import Cell
from pipeline.results.figures import style
from pipeline.results.figures.book import Absent, Drawing, Sheet
from pipeline.results.figures.series import Group, Shown, at_most_labels, groups

MOST_NUMBERED = 16  # classes; the numbers of more would not be legible


def confusion(plan: Plan, cells: Sequence[Cell]) -> Iterator[Sheet]:
    """A figure a dataset and backbone, a panel a technique, at the largest label fraction."""
    for group in groups(cells):
        yield Sheet(
            kind="confusion",
            name=f"confusion-{group.name}",
            dataset=group.dataset,
            paper="",
            draw=lambda group=group: _draw(plan, group),  # type: ignore[misc]
        )


def predictions(path: Path) -> tuple[list[str], np.ndarray, np.ndarray]:
    """The classes, targets [n, classes] of 0 and 1 and scores [n, classes] of a run's predictions.parquet."""
    import pyarrow.parquet as parquet

    table = parquet.read_table(path)
    classes = [name.removeprefix("true:") for name in table.column_names if name.startswith("true:")]
    targets, scores = (
        np.stack([table.column(f"{what}:{name}").to_numpy() for name in classes], axis=1) for what in ("true", "score")
    )
    return classes, targets.astype(int), scores


def matrix(targets: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """How often each class (row) was taken for which (column), by the highest score: int64 [classes, classes]."""
    out = np.zeros((targets.shape[1], targets.shape[1]), dtype=np.int64)
    np.add.at(out, (targets.argmax(axis=1), scores.argmax(axis=1)), 1)
    return out


def _draw(plan: Plan, group: Group) -> Drawing:
    shown = [each for each in at_most_labels(plan, group) if all(i.run["predictions"].exists() for i in each.items)]
    if not shown:
        raise Absent("no fine-tune with predictions is done")
    # What always naming one class would score is stored where an image has exactly one (learn/metrics).
    single = all(item.run.result().metrics.get("majority") for each in shown for item in each.items)
    figure, what = _matrices(shown) if single else _f1_bars(shown)
    figure.suptitle(f"{group.dataset} · {group.title} · {style.percent(shown[0].fraction)} labels")
    labels = f"{style.percent(shown[0].fraction)} of the labels"
    caption = f"{group.title} on the test part of {group.dataset} after fine-tuning on {labels}: "
    return Drawing(figure, caption + what, [item.run.id for each in shown for item in each.items])


def _matrices(shown: list[Shown]) -> tuple[Figure, str]:
    first = predictions(shown[0].items[0].run["predictions"])[0]
    columns = min(len(shown), 3)
    rows = -(-len(shown) // columns)
    side = max(2.0, 0.5 * len(first))
    figure = style.new(1.9 + (side + 0.1) * columns, 1.2 + (side + 0.3) * rows, images=True)
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).flatten()
    for axes, each in zip(panels, shown, strict=False):
        total = sum(matrix(*_scored(item)) for item in each.items)
        assert isinstance(total, np.ndarray)
        heat = _matrix(axes, total, first)
        axes.set_title(f"{each.series.title} (n = {len(each.items)})")
    for axes in panels[len(shown) :]:
        axes.set_visible(False)
    for place, axes in enumerate(panels[: len(shown)]):
        axes.set_xlabel("predicted" if place + columns >= len(shown) else "")
        axes.set_ylabel("true" if place % columns == 0 else "")
    figure.colorbar(heat, ax=panels.tolist(), label="share of the true class", shrink=0.8, aspect=25)
    return figure, (
        "share of the images of each class (row) that are taken for which (column) by the highest score, and under "
        "it how many they are, added up over n runs."
    )


def _scored(item: PlannedRun) -> tuple[np.ndarray, np.ndarray]:
    _, targets, scores = predictions(item.run["predictions"])
    return targets, scores


def _matrix(axes: Axes, counted: np.ndarray, classes: list[str]) -> AxesImage:
    totals = counted.sum(axis=1, keepdims=True)
    shares = np.divide(counted, totals, out=np.zeros(counted.shape), where=totals > 0)
    heat = axes.imshow(shares, cmap=style.COUNTS, vmin=0, vmax=1)
    axes.grid(False)
    axes.set_xticks(range(len(classes)), classes, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(classes)), classes)
    axes.tick_params(length=0)
    for (row, column), count in np.ndenumerate(counted if len(classes) <= MOST_NUMBERED else np.empty((0, 0))):
        share = f"{shares[row, column]:.0%}"
        colour = "white" if shares[row, column] > 0.55 else style.INK
        if count:
            for text, up, size in ((share if share != "0%" else "<1%", 3.0, 7), (f"{count:,}", -5.0, 5.5)):
                axes.annotate(
                    text, (column, row), (0, up), textcoords="offset points", ha="center", va="center", color=colour,
                    size=size,
                )  # fmt: skip
    return heat


def _f1_bars(shown: list[Shown]) -> tuple[Figure, str]:
    scores = [[item.run.result().metrics["per_class"] for item in each.items] for each in shown]
    classes = list(scores[0][0])
    support = {name: scores[0][0][name]["support"] for name in classes}
    figure = style.new(max(5.4, 1.2 + 0.35 * len(classes) * len(shown)), 3.2)
    axes = figure.subplots()
    width = 0.8 / len(shown)
    for place, (each, runs) in enumerate(zip(shown, scores, strict=True)):
        f1 = np.array([[run[name]["f1"] for name in classes] for run in runs])
        deviation = f1.std(axis=0, ddof=1) if len(runs) > 1 else None
        axes.bar(
            np.arange(len(classes)) + (place - (len(shown) - 1) / 2) * width,
            f1.mean(axis=0),
            width * 0.92,
            yerr=deviation,
            capsize=2,
            error_kw={"elinewidth": 0.8, "ecolor": style.INK},
            color=each.series.look.colour,
            label=f"{each.series.title} (n = {len(each.items)})",
        )
    axes.set_xticks(range(len(classes)), [f"{name}\n{support[name]} images" for name in classes])
    axes.tick_params(axis="x", length=0)
    axes.grid(axis="x", visible=False)
    axes.set_ylabel("F1 at 0.5")
    axes.set_ylim(0, 1)
    style.legend(figure, axes.get_legend_handles_labels()[0])
    return figure, "F1 of each class, decided at 0.5: mean and standard deviation over n runs."
