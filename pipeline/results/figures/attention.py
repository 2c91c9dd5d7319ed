"""Attention maps of the Transformer for test images, after fine-tuning (paper D.2)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from pipeline.core.console import counted, progress
from pipeline.data.shards.index import Shards
from pipeline.data.shards.read import read_pixels
from pipeline.jobs.plan import Plan, PlannedRun
from pipeline.results.collect import Cell
from pipeline.results.figures import style
from pipeline.results.figures.networks import chosen_runs, network_input, network_of, plan_figures, training_text
from pipeline.results.figures.publish import DrawnFigure, NothingToDraw, PlannedFigure
from pipeline.results.figures.samples import labelled_test, one_image, proportional
from pipeline.results.figures.series import Group, groups
from pipeline.study import paper

AVERAGED = {"isic": 100}  # images of a mean map; D.2
AVERAGED_DEFAULT = 30  # of other datasets; D.2
BATCH = 10  # images
LABEL = "attention (even share: 1)"
MEAN_FIGURES = {"autoimmune": "Figure 6", "dermofit": "Figure 7", "brain_mri": "Figure 8", "isic": "Figure 9"}


def attention(plan: Plan, cells: Sequence[Cell], *, rollout: bool) -> Iterator[PlannedFigure]:
    """Attention maps of one test image, the techniques side by side."""
    yield from plan_figures(
        plan, cells, "attention", paper.TRANSFORMER, "Figure 2", lambda g: _attention(plan, g, rollout)
    )


def attention_mean(plan: Plan, cells: Sequence[Cell], *, rollout: bool) -> Iterator[PlannedFigure]:
    """Attention maps averaged over test images, the techniques side by side."""
    for group in groups(cells):
        if group.arm.startswith(paper.TRANSFORMER):
            yield PlannedFigure(
                kind="attention-mean",
                name=f"attention-mean-{group.name}",
                dataset=group.dataset,
                paper=MEAN_FIGURES.get(group.dataset_name, ""),
                draw=lambda group=group: _attention_mean(plan, group, rollout),  # type: ignore[misc]
            )


def _maps(planned: PlannedRun, shards: Shards, pixels: np.ndarray, rollout: bool) -> tuple[np.ndarray, bool]:
    """Attention over the patches [n, h, w] in multiples of an even share, and whether it is that of a class token."""
    from pipeline.learn.attention import attention_map, has_class_token

    model = network_of(planned, shards)
    blocks = np.array_split(pixels, -(-len(pixels) // BATCH))
    found = []
    for block in progress(blocks, total=len(blocks), what=f"attention of {planned.run.id}"):
        try:
            found.append(attention_map(model, network_input(block, planned), rollout=rollout).numpy())
        except ValueError as error:
            raise NothingToDraw(str(error)) from None
    maps = np.concatenate(found)
    return maps * maps.shape[1] * maps.shape[2], has_class_token(model)


def _attention_text(with_class_token: bool, rollout: bool) -> str:
    whose = "the class token" if with_class_token else "the patches on average (this network has no class token)"
    how = "attention rollout over all blocks" if rollout else "last block"
    return f"attention of {whose}, {how}, mean over heads, in multiples of an even share over the patches"


def _attention(plan: Plan, group: Group, rollout: bool) -> DrawnFigure:
    shown, runs, shards = chosen_runs(plan, group)
    pixels = read_pixels(shards, [one_image(shards)])
    found = [_maps(planned, shards, pixels, rollout) for planned in runs]
    maps = [each[0][0] for each in found]
    low, high = _range(maps)
    figure = style.new_figure(0.9 + 1.75 * (1 + len(maps)), 4.1, images=True)
    grid = figure.subplots(2, 1 + len(maps))
    for axes in grid.flatten():
        style.hide_axes(axes)
    grid[0, 0].imshow(pixels[0])
    grid[0, 0].set_title("test image")
    for column, (each, one) in enumerate(zip(shown, maps, strict=True), start=1):
        heat = grid[0, column].imshow(one, cmap=style.HEAT, vmin=low, vmax=high)
        grid[0, column].set_title(each.series.title)
        extent = (-0.5, shards.size - 0.5, shards.size - 0.5, -0.5)
        grid[1, column].imshow(pixels[0])
        grid[1, column].imshow(
            one, cmap=style.HEAT, vmin=low, vmax=high, alpha=0.5, interpolation="bilinear", extent=extent
        )
    figure.suptitle(f"{group.dataset} · {group.title}")
    bar = figure.colorbar(heat, cax=grid[1, 0].inset_axes((0.62, 0.05, 0.09, 0.9)))
    bar.set_label(LABEL)
    bar.ax.yaxis.set_ticks_position("left")
    bar.ax.yaxis.set_label_position("left")
    caption = (
        f"Attention maps of {group.title}, {training_text(shown, runs)}, on one test image of {group.dataset}: "
        f"{_attention_text(found[0][1], rollout)}. Below, the same maps over the image, smoothed."
    )
    return DrawnFigure(figure, caption, [planned.run.id for planned in runs])


def spread_of(maps: np.ndarray) -> np.ndarray:
    """The entropy of each map [n, h, w] as a distribution over its patches, over that of an even one: [n] in [0, 1]."""
    shares = maps.reshape(len(maps), -1) / maps.sum(axis=(1, 2), keepdims=True).reshape(len(maps), 1)
    logs = np.log(shares, out=np.zeros_like(shares), where=shares > 0)
    return np.asarray(-(shares * logs).sum(axis=1) / np.log(shares.shape[1]))


def centre_of(maps: np.ndarray) -> np.ndarray:
    """The share of each map [n, h, w] in the middle half of each side: [n], 0.25 of an even one. Patches on the border
    of the middle count by their part in it."""
    inside = [
        np.clip(np.minimum(np.arange(n) + 1, 0.75 * n) - np.maximum(np.arange(n), 0.25 * n), 0, 1)
        for n in maps.shape[1:]
    ]
    return np.asarray((maps * np.outer(*inside)).sum(axis=(1, 2)) / maps.sum(axis=(1, 2)))


def _range(maps: Sequence[np.ndarray]) -> tuple[float, float]:
    """The smallest and largest value of several maps, which share one scale."""
    low, high = min(float(one.min()) for one in maps), max(float(one.max()) for one in maps)
    return low, high if high > low else low + 1


def _attention_mean(plan: Plan, group: Group, rollout: bool) -> DrawnFigure:
    shown, runs, shards = chosen_runs(plan, group)
    rows = labelled_test(shards)
    wanted = AVERAGED.get(group.dataset_name, AVERAGED_DEFAULT)
    rows = [rows[i] for i in proportional(shards.labels(rows), shards.classes, wanted)]
    pixels = read_pixels(shards, rows)
    found = [_maps(planned, shards, pixels, rollout) for planned in runs]
    maps = [each[0].mean(axis=0) for each in found]
    low, high = _range(maps)
    figure = style.new_figure(1.1 + 2.0 * len(maps), 2.6, images=True)
    line = figure.subplots(1, len(maps), squeeze=False)[0]
    for axes, each, one in zip(line, shown, maps, strict=True):
        style.hide_axes(axes)
        heat = axes.imshow(one, cmap=style.HEAT, vmin=low, vmax=high)
        axes.set_title(each.series.title)
    figure.colorbar(heat, ax=line.tolist(), label=LABEL, aspect=16)
    figure.suptitle(f"{group.dataset} · {group.title}")
    caption = (
        f"Attention maps of {group.title}, {training_text(shown, runs)}, averaged over "
        f"{counted(len(rows), 'test image')} of {group.dataset} drawn in proportion to its classes: "
        f"{_attention_text(found[0][1], rollout)}."
    )
    measured = {
        each.series.method: {"entropy": spread_of(one[0]).tolist(), "centre": centre_of(one[0]).tolist()}
        for each, one in zip(shown, found, strict=True)
    }
    return DrawnFigure(figure, caption, [planned.run.id for planned in runs], measured)
