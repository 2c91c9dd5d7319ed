"""Learning curves of pretraining and fine-tuning runs, from what each run logged after every epoch (metrics.jsonl)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from pipeline.core import files
from pipeline.jobs.plan import Plan, PlannedRun
from pipeline.results.collect import Cell
from pipeline.results.figures import style
from pipeline.results.figures.publish import DrawnFigure, NothingToDraw, PlannedFigure
from pipeline.results.figures.series import Group, finished, groups, seed_counts
from pipeline.results.figures.style import MarkerStyle
from pipeline.results.texts import METRIC_TITLES
from pipeline.runs.identity import run_id
from pipeline.runs.methods import method_info
from pipeline.runs.spec import PretrainSpec, method_of

MONITORED = {"spread": "spread of the logits", "rank": "effective rank"}  # as learn/collapse logs them

Rows = list[dict[str, Any]]
"""The lines of a run's metrics.jsonl."""


def band(curves: Sequence[Sequence[float]]) -> tuple[np.ndarray, np.ndarray]:
    """Mean and sample standard deviation at each position that at least half of the curves reach: arrays [length]."""
    lengths = sorted((len(curve) for curve in curves), reverse=True)
    length = lengths[(len(curves) + 1) // 2 - 1]
    columns = [[curve[i] for curve in curves if len(curve) > i] for i in range(length)]
    means = np.array([np.mean(column) for column in columns])
    return means, np.array([np.std(column, ddof=1) if len(column) > 1 else 0.0 for column in columns])


def _draw_band(axes: Axes, curves: Sequence[Sequence[float]], marks: MarkerStyle, line: str = "-") -> None:
    means, deviations = band(curves)
    epochs = np.arange(1, len(means) + 1)
    for curve in curves:
        axes.plot(np.arange(1, len(curve) + 1), curve, line, color=marks.colour, linewidth=0.5, alpha=0.5)
    axes.fill_between(epochs, means - deviations, means + deviations, color=marks.colour, alpha=0.18, linewidth=0)
    every = max(1, len(means) // 10)
    axes.plot(epochs, means, line, color=marks.colour, marker=marks.marker, markersize=3.5, markevery=every)


def _curve(rows: Rows, name: str) -> list[float]:
    """A column of metrics.jsonl; NaN, which is not drawn, where a score was not defined."""
    return [float("nan") if row.get(name) is None else float(row[name]) for row in rows]


def _by_dataset(plan: Plan, kind: str, draw: Callable[[Plan, str], DrawnFigure]) -> Iterator[PlannedFigure]:
    """A figure for each dataset that something is pretrained on."""
    specs = [planned.spec for planned in plan.runs.values() if isinstance(planned.spec, PretrainSpec)]
    for dataset in dict.fromkeys(plan.title_of(spec.dataset) for spec in specs):
        yield PlannedFigure(
            kind=kind, name=f"{kind}-{dataset}", dataset=dataset, paper="", draw=partial(draw, plan, dataset)
        )


# --- Pretraining ---------------------------------------------------------------------------------------------------


def pretraining(plan: Plan, cells: Sequence[Cell]) -> Iterator[PlannedFigure]:
    """Loss and collapse monitor of the pretraining runs, a figure for each dataset."""
    return _by_dataset(plan, "pretraining", _pretraining)


def _pretraining(plan: Plan, dataset: str) -> DrawnFigure:
    recipes = _recipes(plan, dataset)
    if not recipes:
        raise NothingToDraw("no pretraining run is done")
    figure = style.new_figure(7.2, 2.9)
    loss, *monitored = figure.subplots(1, 3)
    handles: dict[str, Line2D] = {}
    lines: dict[str, Any] = {}
    collapsed = False
    for title, marks, runs in recipes:
        tables = [files.read_jsonl(planned.run["metrics"]) for planned in runs]
        spec = runs[0].spec
        assert isinstance(spec, PretrainSpec)
        for arm in spec.arms:
            lines.setdefault(arm.name, style.ARM_LINES[len(lines) % len(style.ARM_LINES)])
        own = lines[spec.arms[0].name] if len(spec.arms) == 1 else "-"
        _draw_band(loss, [_curve(rows, "loss") for rows in tables], marks, own)
        for arm in spec.arms:
            for axes, what in zip(monitored, MONITORED, strict=True):
                name = f"{arm.name}_{what}"
                if any(name in row for rows in tables for row in rows):
                    _draw_band(axes, [_curve(rows, name) for rows in tables], marks, lines[arm.name])
                    collapsed |= _mark_collapse(axes, tables, arm.name, name)
        handles.setdefault(title, Line2D([], [], color=marks.colour, marker=marks.marker, label=title))
    loss.set_title("pretraining loss")
    figure.suptitle(dataset)
    for axes, what in zip(monitored, MONITORED.values(), strict=True):
        axes.set_title(what)
        style.from_zero(axes)
    for axes in (loss, *monitored):
        style.whole_epochs(axes)
    arms = [Line2D([], [], color=style.INK, linestyle=line, label=arm) for arm, line in lines.items()]
    if collapsed:
        arms.append(Line2D([], [], color=style.INK, marker="x", linestyle="", label="flagged as collapsed"))
    style.legend(figure, [*handles.values(), *arms])
    numbers = sorted({len(runs) for _, _, runs in recipes})
    n = " to ".join(map(str, numbers[:: max(1, len(numbers) - 1)]))
    caption = (
        f"Pretraining on {dataset}: the loss and, for each arm, the values of the collapse monitor (spread: about 1 "
        "where logits point in all directions, 0 where every image has the same logits; effective rank: how many "
        f"directions they use). Mean and standard deviation over seeds (n = {n}); thin lines are single runs."
    )
    return DrawnFigure(figure, caption, [planned.run.id for _, _, runs in recipes for planned in runs])


def _recipes(plan: Plan, dataset: str) -> list[tuple[str, MarkerStyle, list[PlannedRun]]]:
    """The finished pretraining runs of a dataset with a title and a style, grouped where only their seeds differ.

    Runs of one method that train one arm each share its title and style: the line tells their arms apart.
    """
    found: dict[str, list[PlannedRun]] = {}
    for planned in plan.runs.values():
        spec = planned.spec
        if not isinstance(spec, PretrainSpec) or planned.state != "done":
            continue
        if plan.title_of(spec.dataset) == dataset:
            found.setdefault(run_id(dataclasses.replace(spec, seed=0)), []).append(planned)
    kinds = {recipe: (method_of(runs[0].spec), _arms(runs[0])) for recipe, runs in found.items()}
    position = {recipe: list(kinds.values())[:i].count(kinds[recipe]) for i, recipe in enumerate(kinds)}
    names = sorted({(method, position[recipe]): None for recipe, (method, _) in kinds.items()})
    styles = dict(zip(names, style.marker_styles([method for method, _ in names]), strict=True))
    out = []
    for recipe, runs in found.items():
        method, _ = kinds[recipe]
        alone = list(kinds.values()).count(kinds[recipe]) == 1
        title = method_info(method).title + ("" if alone else f" #{recipe[-4:]}")
        out.append((title, styles[method, position[recipe]], runs))
    return out


def _arms(planned: PlannedRun) -> tuple[str, ...]:
    assert isinstance(planned.spec, PretrainSpec)
    return tuple(arm.name for arm in planned.spec.arms)


def _mark_collapse(axes: Axes, tables: list[Rows], arm: str, name: str) -> bool:
    """Draw a cross at each epoch that the monitor flagged; returns whether there are any."""
    points = [(i + 1, row[name]) for rows in tables for i, row in enumerate(rows) if row.get(f"{arm}_collapsed")]
    if points:
        x, y = zip(*points, strict=True)
        axes.scatter(x, y, marker="x", s=18, color=style.INK, linewidth=0.8, zorder=4)
    return bool(points)


# --- Probes ---------------------------------------------------------------------------------------------------------


def probes(plan: Plan, cells: Sequence[Cell]) -> Iterator[PlannedFigure]:
    """Probes of frozen features over the epochs of pretraining, a figure for each dataset."""
    return _by_dataset(plan, "probes", _probes)


def _probes(plan: Plan, dataset: str) -> DrawnFigure:
    judged = [
        (title, marks, found)
        for title, marks, runs in _recipes(plan, dataset)
        if (found := [planned for planned in runs if planned.run.result().probes])
    ]
    if not judged:
        raise NothingToDraw("no finished pretraining run was judged by probes")
    facts = judged[0][2][0].run.result().probes
    figure = style.new_figure(7.2, 2.9)
    panels = figure.subplots(1, 2, sharey=True)
    columns = {"k-NN": "val_knn", "linear probe, all labels": f"val_linear_{max(facts['labelled'], key=float)}"}
    lines: dict[str, Any] = {}
    for _, marks, runs in judged:
        tables = [files.read_jsonl(planned.run["metrics"]) for planned in runs]
        for arm in _arms(runs[0]):
            line = lines.setdefault(arm, style.ARM_LINES[len(lines) % len(style.ARM_LINES)])
            for axes, column in zip(panels, columns.values(), strict=True):
                _draw_points(axes, [_points(rows, f"{arm}_{column}") for rows in tables], marks, line)
    for axes, title in zip(panels, columns, strict=True):
        axes.set_title(title)
        style.whole_epochs(axes)
    metric = METRIC_TITLES[facts["metric"]]
    panels[0].set_ylabel(f"validation\n{metric}")
    methods = [Line2D([], [], color=m.colour, marker=m.marker, label=title) for title, m, _ in judged]
    arms = [Line2D([], [], color=style.INK, linestyle=line, label=arm) for arm, line in lines.items()]
    style.legend(figure, [*methods, *arms])
    figure.suptitle(dataset)
    caption = (
        f"Frozen features of the arms while they are pretrained on {dataset}, without fine-tuning: {metric} on "
        "validation images of k-NN (20 neighbours by cosine) and of a linear probe. Epoch 0 is before the first step; "
        "the last point is of the weights that are published. Means over seeds; thin lines are single runs."
    )
    return DrawnFigure(figure, caption, [planned.run.id for _, _, runs in judged for planned in runs])


def _points(rows: Rows, name: str) -> dict[int, float]:
    """A score of the probes by the number of epochs trained; 0 for the start."""
    found = {0: rows[0].get("start", {}).get(name)} | {row["epoch"] + 1: row.get(name) for row in rows}
    return {epochs: score for epochs, score in found.items() if score is not None}


def _draw_points(axes: Axes, runs: Sequence[dict[int, float]], marks: MarkerStyle, line: str) -> None:
    """Lines through the points of single runs, and one through the means of the epochs that all of them have."""
    for points in runs:
        axes.plot(list(points), list(points.values()), line, color=marks.colour, linewidth=0.5, alpha=0.5)
    shared = [epochs for epochs in runs[0] if all(epochs in points for points in runs)]
    means = [float(np.mean([points[epochs] for points in runs])) for epochs in shared]
    axes.plot(shared, means, line, color=marks.colour, marker=marks.marker, markersize=3.5)


# --- Fine-tuning ---------------------------------------------------------------------------------------------------


def finetuning(plan: Plan, cells: Sequence[Cell]) -> Iterator[PlannedFigure]:
    """Validation loss and metric of the fine-tunes, a figure for each dataset and backbone."""
    for group in groups(cells):
        yield PlannedFigure(
            kind="finetuning",
            name=f"finetuning-{group.name}",
            dataset=group.dataset,
            paper="",
            draw=lambda group=group: _finetuning(plan, group),  # type: ignore[misc]
        )


def _finetuning(plan: Plan, group: Group) -> DrawnFigure:
    found = {
        (series.title, fraction): (series, runs)
        for series in group.series
        if series.method != "frozen"  # nothing is trained
        for fraction, cell in series.cells.items()
        if (runs := finished(plan, cell))
    }
    if not found:
        raise NothingToDraw("no fine-tune is done")
    fractions = sorted({fraction for _, fraction in found})
    metric = next(iter(group.series[0].cells.values())).metric
    tables = {key: [files.read_jsonl(planned.run["metrics"]) for planned in runs] for key, (_, runs) in found.items()}
    logged = any(f"val_{metric}" in row for several in tables.values() for rows in several for row in rows)
    metric = metric if logged else "balanced_accuracy"
    figure = style.new_figure(1.2 + 2.1 * len(fractions), 4.0)
    grid = figure.subplots(2, len(fractions), sharey="row", squeeze=False)
    for (_, fraction), (series, _), several in zip(found, found.values(), tables.values(), strict=True):
        column = fractions.index(fraction)
        _draw_band(grid[0, column], [_curve(rows, "val_loss") for rows in several], series.style)
        _draw_band(grid[1, column], [_curve(rows, f"val_{metric}") for rows in several], series.style)
    for column, fraction in enumerate(fractions):
        grid[0, column].set_title(f"{style.percent(fraction)} labels")
        style.whole_epochs(grid[0, column])
        style.whole_epochs(grid[1, column])
        grid[0, column].set_xlabel("")
    style.from_zero(*grid[0])
    grid[0, 0].set_ylabel("validation loss")
    grid[1, 0].set_ylabel(f"validation\n{METRIC_TITLES[metric]}")
    shown = [series for series in group.series if any(title == series.title for title, _ in found)]
    handles = [Line2D([], [], color=s.style.colour, marker=s.style.marker, label=s.title) for s in shown]
    style.legend(figure, handles)
    figure.suptitle(f"{group.dataset} · {group.title}")
    cells = [cell for series in group.series for cell in series.cells.values()]
    caption = (
        f"Fine-tuning {group.title} on {group.dataset}: validation loss and {METRIC_TITLES[metric]} after each epoch. "
        f"Mean and standard deviation over seeds ({seed_counts(cells)}), drawn as far as half of the seeds trained; "
        "thin lines are single runs."
    )
    return DrawnFigure(figure, caption, [planned.run.id for _, runs in found.values() for planned in runs])
