"""Feature maps of the CNN's first convolutions for one test image, after fine-tuning (paper D.1)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from pipeline.data.shards.index import Shards
from pipeline.data.shards.read import read_pixels
from pipeline.jobs.plan import Plan, PlannedRun
from pipeline.results.collect import Cell
from pipeline.results.figures import style
from pipeline.results.figures.networks import chosen_runs, network_input, network_of, plan_figures, training_text
from pipeline.results.figures.publish import DrawnFigure, PlannedFigure
from pipeline.results.figures.samples import one_image
from pipeline.results.figures.series import Group
from pipeline.study import paper

CONVOLUTIONS = 5  # the first ones; D.1
CHANNELS = 7  # shown next to the mean of the first convolution; ASSUMED
CHANNELS_OF_FIVE = 2  # shown below the mean of each of the five; ASSUMED


def first_layer(plan: Plan, cells: Sequence[Cell]) -> Iterator[PlannedFigure]:
    """Feature maps of the first convolution for one test image."""
    yield from plan_figures(plan, cells, "first-layer", paper.CNN, "Figure 3", lambda g: _first_layer(plan, g))


def features(plan: Plan, cells: Sequence[Cell]) -> Iterator[PlannedFigure]:
    """Feature maps of the first five convolutions for one test image."""
    yield from plan_figures(plan, cells, "features", paper.CNN, "Figure 5", lambda g: _features(plan, g))


def _computed_maps(runs: Sequence[PlannedRun], shards: Shards, pixels: np.ndarray, count: int) -> list[list[Any]]:
    """For each run, the names of its first convolutions and their outputs [channels, h, w] for one image."""
    from pipeline.learn.feature_maps import feature_maps

    out = []
    for planned in runs:
        found = feature_maps(network_of(planned, shards), network_input(pixels, planned), count=count)
        out.append([(name, maps[0].numpy()) for name, maps in found])
    return out


def _draw_feature_map(axes: Any, values: np.ndarray) -> None:
    """Draw a map in its own range, without the outermost hundredth: features of two networks share no unit."""
    low, high = np.percentile(values, (0.5, 99.5))
    axes.imshow(values, cmap="gray", vmin=low, vmax=high if high > low else low + 1)


def _first_layer(plan: Plan, group: Group) -> DrawnFigure:
    shown, runs, shards = chosen_runs(plan, group)
    pixels = read_pixels(shards, [one_image(shards)])
    found = _computed_maps(runs, shards, pixels, 1)
    channels = min(CHANNELS, *(each[0][1].shape[0] for each in found))
    figure = style.new_figure(0.9 + 1.0 * (2 + channels), 0.3 + 1.05 * len(found), images=True)
    grid = figure.subplots(len(found), 2 + channels, squeeze=False)
    for line, each, convolutions in zip(grid, shown, found, strict=True):
        _, maps = convolutions[0]
        line[0].imshow(pixels[0])
        _draw_feature_map(line[1], maps.mean(axis=0))
        for channel in range(channels):
            _draw_feature_map(line[2 + channel], maps[channel])
        line[0].set_ylabel(each.series.title, rotation=0, ha="right", va="center", labelpad=6)
    for axes, title in zip(grid[0], ["image", "mean", *(f"channel {i + 1}" for i in range(channels))], strict=True):
        axes.set_title(title, fontsize=8)
    for axes in grid.flatten():
        style.hide_axes(axes)
    caption = (
        f"Output of the first convolution of {group.title}, {training_text(shown, runs)}, for one test image of "
        f"{group.dataset}: mean over the channels, then the first {channels} channels, each map in its own range of "
        "grey."
    )
    return DrawnFigure(figure, caption, [planned.run.id for planned in runs])


def _features(plan: Plan, group: Group) -> DrawnFigure:
    shown, runs, shards = chosen_runs(plan, group)
    pixels = read_pixels(shards, [one_image(shards)])
    found = _computed_maps(runs, shards, pixels, CONVOLUTIONS)
    columns = max(map(len, found))
    kinds = ["mean", *(f"channel {i + 1}" for i in range(CHANNELS_OF_FIVE))]
    figure = style.new_figure(1.2 + 1.05 * (1 + columns), 0.4 + 1.15 * len(kinds) * len(found))
    blocks = figure.subfigures(len(found), 1, squeeze=False)[:, 0]
    for block, each, convolutions in zip(blocks, shown, found, strict=True):
        block.suptitle(each.series.title, fontweight="bold", fontsize=9)
        grid = block.subplots(len(kinds), 1 + columns, squeeze=False)
        grid[0, 0].imshow(pixels[0])
        grid[0, 0].set_title("image", fontsize=8)
        for column, (name, maps) in enumerate(convolutions, start=1):
            grid[0, column].set_title(f"{column}: {name}", fontsize=7)
            for line, values in zip(grid, [maps.mean(axis=0), *maps[:CHANNELS_OF_FIVE]], strict=False):
                _draw_feature_map(line[column], values)
        for line, kind in zip(grid, kinds, strict=True):
            line[1].set_ylabel(kind, fontsize=7)
        for axes in grid.flatten():
            style.hide_axes(axes)
    caption = (
        f"Outputs of the first {columns} convolutions, in the order they run, of {group.title}, "
        f"{training_text(shown, runs)}, for one test image of {group.dataset}: mean over the channels, then the first "
        f"{CHANNELS_OF_FIVE} channels, each map in its own range of grey."
    )
    return DrawnFigure(figure, caption, [planned.run.id for planned in runs])
