"""Learning curves of pretraining and fine-tuning runs, from what each logged after every epoch (metrics.jsonl)."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from pipeline.core import files
from pipeline.jobs.plan import Plan, PlannedRun
from pipeline.results.collect import Cell
from pipeline.results.figures import style
from pipeline.results.figures.book import Absent, Drawing, Sheet
from pipeline.results.figures.series import Group, counts, done, groups
from pipeline.results.tables import METRIC_TITLES
from pipeline.runs.identity import run_id
from pipeline.runs.spec import PretrainSpec, method_of
from pipeline.study.experiments import TECHNIQUES

WATCHED = {"spread": "spread of the logits", "rank": "effective rank"}  # as learn/collapse logs them


def band(curves: Sequence[Sequence[float]]) -> tuple[np.ndarray, np.ndarray]:
    """Mean and sample deviation at each position that at least half of the curves reach: two arrays [length]."""
    reached = sorted((len(curve) for curve in curves), reverse=True)
    length = reached[(len(curves) + 1) // 2 - 1]
    columns = [[curve[i] for curve in curves if len(curve) > i] for i in range(length)]
    means = np.array([np.mean(column) for column in columns])
    return means, np.array([np.std(column, ddof=1) if len(column) > 1 else 0.0 for column in columns])


def _draw_band(axes: Axes, curves: Sequence[Sequence[float]], look: style.Look, line: str = "-") -> None:
    means, deviations = band(curves)
    epochs = np.arange(1, len(means) + 1)
    for curve in curves:
        axes.plot(np.arange(1, len(curve) + 1), curve, line, color=look.colour, linewidth=0.5, alpha=0.5)
    axes.fill_between(epochs, means - deviations, means + deviations, color=look.colour, alpha=0.18, linewidth=0)
    axes.plot(epochs, means, line, color=look.colour, marker=look.marker, markersize=3.5, markevery=_every(len(means)))


def _every(length: int) -> int:
    return max(1, length // 10)


def _curve(rows: list[dict[str, Any]], name: str) -> list[float]:
    """A column of metrics.jsonl; where a score was not defined, nothing is drawn."""
    return [float("nan") if row.get(name) is None else float(row[name]) for row in rows]


# --- Pretraining ---------------------------------------------------------------------------------------------------


def pretraining(plan: Plan, cells: Sequence[Cell]) -> Iterator[Sheet]:
    """Loss and collapse monitor of the pretraining runs, a figure a dataset."""
    specs = [item.spec for item in plan.runs.values() if isinstance(item.spec, PretrainSpec)]
    for dataset in dict.fromkeys(spec.dataset.name for spec in specs):
        yield Sheet(
            kind="pretraining",
            name=f"pretraining-{dataset}",
            dataset=dataset,
            paper="",
            draw=lambda dataset=dataset: _pretraining(plan, dataset),  # type: ignore[misc]
        )


def _pretraining(plan: Plan, dataset: str) -> Drawing:
    recipes = _recipes(plan, dataset)
    if not recipes:
        raise Absent("no pretraining run is done")
    figure = style.new(7.2, 2.9)
    loss, *watched = figure.subplots(1, 3)
    handles: dict[str, Line2D] = {}
    lines: dict[str, Any] = {}
    collapsed = False
    for title, look, items in recipes:
        tables = [files.read_jsonl(item.run["metrics"]) for item in items]
        spec = items[0].spec
        assert isinstance(spec, PretrainSpec)
        for arm in spec.arms:
            lines.setdefault(arm.name, style.ARM_LINES[len(lines) % len(style.ARM_LINES)])
        own = lines[spec.arms[0].name] if len(spec.arms) == 1 else "-"
        _draw_band(loss, [_curve(rows, "loss") for rows in tables], look, own)
        for arm in spec.arms:
            for axes, what in zip(watched, WATCHED, strict=True):
                name = f"{arm.name}_{what}"
                if any(name in row for rows in tables for row in rows):
                    _draw_band(axes, [_curve(rows, name) for rows in tables], look, lines[arm.name])
                    collapsed |= _mark_collapse(axes, tables, arm.name, name)
        handles.setdefault(title, Line2D([], [], color=look.colour, marker=look.marker, label=title))
    loss.set_title("pretraining loss")
    figure.suptitle(dataset)
    for axes, what in zip(watched, WATCHED.values(), strict=True):
        axes.set_title(what)
        axes.set_ylim(bottom=0)
    for axes in (loss, *watched):
        style.whole_epochs(axes)
    marks = [Line2D([], [], color=style.INK, linestyle=line, label=arm) for arm, line in lines.items()]
    if collapsed:
        marks.append(Line2D([], [], color=style.INK, marker="x", linestyle="", label="flagged as collapsed"))
    style.legend(figure, [*handles.values(), *marks])
    numbers = sorted({len(items) for _, _, items in recipes})
    caption = (
        f"Pretraining on {dataset}: loss and, of each arm, what the collapse monitor sees (spread: about 1 for logits "
        "in all directions, 0 when every image has the same ones; effective rank: how many directions they use). "
        f"Mean and standard deviation over seeds (n = {' to '.join(map(str, numbers[:: max(1, len(numbers) - 1)]))}), "
        "thin lines the single runs."
    )
    return Drawing(figure, caption, [item.run.id for _, _, items in recipes for item in items])


def _recipes(plan: Plan, dataset: str) -> list[tuple[str, style.Look, list[PlannedRun]]]:
    """The finished pretraining runs of a dataset, those that differ in nothing but their seed together, titled.

    One-arm runs of a method share its title and look: the line tells their arms apart.
    """
    found: dict[str, list[PlannedRun]] = {}
    for item in plan.runs.values():
        if isinstance(item.spec, PretrainSpec) and item.spec.dataset.name == dataset and item.state == "done":
            found.setdefault(run_id(dataclasses.replace(item.spec, seed=0)), []).append(item)
    kinds = {recipe: (method_of(items[0].spec), _arms(items[0])) for recipe, items in found.items()}
    place = {recipe: list(kinds.values())[:i].count(kinds[recipe]) for i, recipe in enumerate(kinds)}
    names = sorted({(method, place[recipe]): None for recipe, (method, _) in kinds.items()})
    look = dict(zip(names, style.looks([method for method, _ in names]), strict=True))
    out = []
    for recipe, items in found.items():
        method, _ = kinds[recipe]
        alone = list(kinds.values()).count(kinds[recipe]) == 1
        title = TECHNIQUES.get(method, method) + ("" if alone else f" #{recipe[-4:]}")
        out.append((title, look[method, place[recipe]], items))
    return out


def _arms(item: PlannedRun) -> tuple[str, ...]:
    assert isinstance(item.spec, PretrainSpec)
    return tuple(arm.name for arm in item.spec.arms)


def _mark_collapse(axes: Axes, tables: list[list[dict[str, Any]]], arm: str, name: str) -> bool:
    """Cross out the epochs that the monitor flagged; returns whether there were any."""
    points = [(i + 1, row[name]) for rows in tables for i, row in enumerate(rows) if row.get(f"{arm}_collapsed")]
    if points:
        x, y = zip(*points, strict=True)
        axes.scatter(x, y, marker="x", s=18, color=style.INK, linewidth=0.8, zorder=4)
    return bool(points)


# --- Fine-tuning ---------------------------------------------------------------------------------------------------


def finetuning(plan: Plan, cells: Sequence[Cell]) -> Iterator[Sheet]:
    """Validation loss and metric of the fine-tunes, a figure a dataset and backbone, a column a label fraction."""
    for group in groups(cells):
        yield Sheet(
            kind="finetuning",
            name=f"finetuning-{group.name}",
            dataset=group.dataset,
            paper="",
            draw=lambda group=group: _finetuning(plan, group),  # type: ignore[misc]
        )


def _finetuning(plan: Plan, group: Group) -> Drawing:
    found = {
        (series.title, fraction): (series, items)
        for series in group.series
        for fraction, cell in series.cells.items()
        if (items := done(plan, cell))
    }
    if not found:
        raise Absent("no fine-tune is done")
    fractions = sorted({fraction for _, fraction in found})
    metric = next(iter(group.series[0].cells.values())).metric
    tables = {key: [files.read_jsonl(item.run["metrics"]) for item in items] for key, (_, items) in found.items()}
    logged = any(f"val_{metric}" in row for several in tables.values() for rows in several for row in rows)
    metric = metric if logged else "balanced_accuracy"
    figure = style.new(1.2 + 2.1 * len(fractions), 4.0)
    grid = figure.subplots(2, len(fractions), sharey="row", squeeze=False)
    for (_, fraction), (series, _), several in zip(found, found.values(), tables.values(), strict=True):
        column = fractions.index(fraction)
        _draw_band(grid[0, column], [_curve(rows, "val_loss") for rows in several], series.look)
        _draw_band(grid[1, column], [_curve(rows, f"val_{metric}") for rows in several], series.look)
    for column, fraction in enumerate(fractions):
        grid[0, column].set_title(f"{style.percent(fraction)} labels")
        grid[0, column].set_ylim(bottom=0)
        style.whole_epochs(grid[0, column])
        style.whole_epochs(grid[1, column])
        grid[0, column].set_xlabel("")
    grid[0, 0].set_ylabel("validation loss")
    grid[1, 0].set_ylabel(f"validation\n{METRIC_TITLES[metric]}")
    shown = [series for series in group.series if any(title == series.title for title, _ in found)]
    handles = [Line2D([], [], color=s.look.colour, marker=s.look.marker, label=s.title) for s in shown]
    style.legend(figure, handles)
    figure.suptitle(f"{group.dataset} · {group.title}")
    cells = [cell for series in group.series for cell in series.cells.values()]
    caption = (
        f"Fine-tuning {group.title} on {group.dataset}: validation loss and {METRIC_TITLES[metric]} after each epoch. "
        f"Mean and standard deviation over seeds ({counts(cells)}), drawn as far as half of the seeds trained; thin "
        "lines the single runs."
    )
    return Drawing(figure, caption, [item.run.id for _, items in found.values() for item in items])
