"""What fine-tuned networks see in test images: attention maps of the Transformer, feature maps of the CNN (paper D).

Networks are rebuilt from their runs' weights and looked at on the CPU in float32, so that the same runs give the same
maps whatever trained them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.core.console import progress
from pipeline.data.shards.index import Shards
from pipeline.data.shards.read import read_pixels
from pipeline.jobs.plan import Plan, PlannedRun
from pipeline.results.collect import Cell
from pipeline.results.figures import style
from pipeline.results.figures.book import Absent, Drawing, Sheet
from pipeline.results.figures.samples import labelled_test, one_image, proportional, shards_for
from pipeline.results.figures.series import Group, Shown, at_most_labels, finetune_spec, groups, one_each, seeds
from pipeline.study import paper

if TYPE_CHECKING:
    from torch import Tensor, nn

AVERAGED = {"isic": 100}  # D.2
AVERAGED_ELSE = 30  # D.2
CONVOLUTIONS = 5  # D.1
CHANNELS = 7  # shown beside the mean of the first convolution; ASSUMED
CHANNELS_OF_FIVE = 2  # shown under the mean of each of five; ASSUMED
BATCH = 10
LABEL = "attention (even share: 1)"
MEAN_FIGURES = {"autoimmune": "Figure 6", "dermofit": "Figure 7", "brain_mri": "Figure 8", "isic": "Figure 9"}
SINGLE_DATASET = "autoimmune"  # of Figures 2, 3 and 5


def attention(plan: Plan, cells: Sequence[Cell], *, rollout: bool) -> Iterator[Sheet]:
    """Attention maps of one test image, the techniques side by side."""
    yield from _sheets(plan, cells, "attention", paper.TRANSFORMER, "Figure 2", lambda g: _attention(plan, g, rollout))


def attention_mean(plan: Plan, cells: Sequence[Cell], *, rollout: bool) -> Iterator[Sheet]:
    """Attention maps averaged over test images, the techniques side by side."""
    for group in groups(cells):
        if group.arm.startswith(paper.TRANSFORMER):
            yield Sheet(
                kind="attention-mean",
                name=f"attention-mean-{group.name}",
                dataset=group.dataset,
                paper=MEAN_FIGURES.get(group.dataset, ""),
                draw=lambda group=group: _attention_mean(plan, group, rollout),  # type: ignore[misc]
            )


def first_layer(plan: Plan, cells: Sequence[Cell]) -> Iterator[Sheet]:
    """Feature maps of the first convolution for one test image."""
    yield from _sheets(plan, cells, "first-layer", paper.CNN, "Figure 3", lambda g: _first_layer(plan, g))


def features(plan: Plan, cells: Sequence[Cell]) -> Iterator[Sheet]:
    """Feature maps of the first five convolutions for one test image."""
    yield from _sheets(plan, cells, "features", paper.CNN, "Figure 5", lambda g: _features(plan, g))


def _sheets(plan: Plan, cells: Sequence[Cell], kind: str, arm: str, figure: str, draw: Any) -> Iterator[Sheet]:
    for group in groups(cells):
        if group.arm == arm:
            yield Sheet(
                kind=kind,
                name=f"{kind}-{group.name}",
                dataset=group.dataset,
                paper=figure if group.dataset == SINGLE_DATASET else f"as {figure}",
                draw=lambda group=group: draw(group),  # type: ignore[misc]
                images=True,
            )


# --- Networks and images -----------------------------------------------------------------------------------------


def _shown(plan: Plan, group: Group) -> tuple[list[Shown], list[PlannedRun], Shards]:
    """The techniques that have a finished run, that run of each, and the shards it was tested on."""
    shown = at_most_labels(plan, group)
    if not shown:
        raise Absent("no fine-tune is done")
    items = one_each(shown)
    lost = [item.run["weights"] for item in items if not item.run["weights"].exists()]
    if lost:
        raise Absent(f"there is no {lost[0]}; the network cannot be rebuilt")
    spec = finetune_spec(items[0])
    return shown, items, shards_for(plan, spec.dataset, spec.image_size)


def _network(item: PlannedRun, shards: Shards) -> nn.Module:
    """A run's network with its best weights, on the CPU, in evaluation mode."""
    from pipeline.learn import backbones

    spec = finetune_spec(item)
    model = backbones.build(
        spec.backbone,
        outputs=len(shards.classes),
        image_size=spec.image_size,
        weights="random",
        folder=Path(),
    )
    model.load_state_dict(backbones.load_arm(item.run["weights"], "model"))
    return model.eval()


def _images(pixels: np.ndarray, item: PlannedRun) -> Tensor:
    """Images uint8 [n, h, w, 3] as the network is given them, without augmentation."""
    import torch

    from pipeline.learn.augment import normalise, unit

    return normalise(unit(torch.from_numpy(pixels)), finetune_spec(item).augment)


def _maps(item: PlannedRun, shards: Shards, pixels: np.ndarray, rollout: bool) -> tuple[np.ndarray, bool]:
    """Attention over patches [n, h, w], as multiples of an even share, and whether it is a class token's."""
    from pipeline.learn.attention import attention_map, has_class_token

    model = _network(item, shards)
    blocks = np.array_split(pixels, -(-len(pixels) // BATCH))
    found = []
    for block in progress(blocks, total=len(blocks), what=f"attention of {item.run.id}"):
        try:
            found.append(attention_map(model, _images(block, item), rollout=rollout).numpy())
        except ValueError as error:
            raise Absent(str(error)) from None
    maps = np.concatenate(found)
    return maps * maps.shape[1] * maps.shape[2], has_class_token(model)


def _how(with_class_token: bool, rollout: bool) -> str:
    whose = "the class token" if with_class_token else "the patches on average (this network has no class token)"
    how = "attention rollout over all blocks" if rollout else "last block"
    return f"attention of {whose}, {how}, mean over heads, in multiples of an even share over the patches"


def _who(shown: Sequence[Shown], items: Sequence[PlannedRun]) -> str:
    return f"fine-tuned on {style.percent(shown[0].fraction)} of the labels ({seeds(items)})"


# --- Attention -----------------------------------------------------------------------------------------------------


def _attention(plan: Plan, group: Group, rollout: bool) -> Drawing:
    shown, items, shards = _shown(plan, group)
    pixels = read_pixels(shards, [one_image(shards)])
    found = [_maps(item, shards, pixels, rollout) for item in items]
    maps = [each[0][0] for each in found]
    low, high = _range(maps)
    figure = style.new(0.9 + 1.75 * (1 + len(maps)), 4.1, images=True)
    grid = figure.subplots(2, 1 + len(maps))
    for axes in grid.flatten():
        style.bare(axes)
    grid[0, 0].imshow(pixels[0])
    grid[0, 0].set_title("test image")
    for column, (each, one) in enumerate(zip(shown, maps, strict=True), start=1):
        heat = grid[0, column].imshow(one, cmap=style.HEAT, vmin=low, vmax=high)
        grid[0, column].set_title(each.series.title)
        place = (-0.5, shards.size - 0.5, shards.size - 0.5, -0.5)
        grid[1, column].imshow(pixels[0])
        grid[1, column].imshow(
            one, cmap=style.HEAT, vmin=low, vmax=high, alpha=0.5, interpolation="bilinear", extent=place
        )
    figure.suptitle(f"{group.dataset} · {group.title}")
    bar = figure.colorbar(heat, cax=grid[1, 0].inset_axes((0.62, 0.05, 0.09, 0.9)))
    bar.set_label(LABEL)
    bar.ax.yaxis.set_ticks_position("left")
    bar.ax.yaxis.set_label_position("left")
    caption = (
        f"Attention maps of {group.title}, {_who(shown, items)}, on one test image of {group.dataset}: "
        f"{_how(found[0][1], rollout)}. Below, the same over the image, smoothed."
    )
    return Drawing(figure, caption, [item.run.id for item in items])


def _range(maps: Sequence[np.ndarray]) -> tuple[float, float]:
    """The smallest and largest value of several maps, which share one scale."""
    low, high = min(float(one.min()) for one in maps), max(float(one.max()) for one in maps)
    return low, high if high > low else low + 1


def _attention_mean(plan: Plan, group: Group, rollout: bool) -> Drawing:
    shown, items, shards = _shown(plan, group)
    rows = labelled_test(shards)
    wanted = AVERAGED.get(group.dataset, AVERAGED_ELSE)
    rows = [rows[i] for i in proportional(shards.labels(rows), shards.classes, wanted)]
    pixels = read_pixels(shards, rows)
    found = [_maps(item, shards, pixels, rollout) for item in items]
    maps = [each[0].mean(axis=0) for each in found]
    low, high = _range(maps)
    figure = style.new(1.1 + 2.0 * len(maps), 2.6, images=True)
    line = figure.subplots(1, len(maps), squeeze=False)[0]
    for axes, each, one in zip(line, shown, maps, strict=True):
        style.bare(axes)
        heat = axes.imshow(one, cmap=style.HEAT, vmin=low, vmax=high)
        axes.set_title(each.series.title)
    figure.colorbar(heat, ax=line.tolist(), label=LABEL, aspect=16)
    figure.suptitle(f"{group.dataset} · {group.title}")
    caption = (
        f"Attention maps of {group.title}, {_who(shown, items)}, averaged over {len(rows)} test images of "
        f"{group.dataset} drawn in proportion to its classes: {_how(found[0][1], rollout)}."
    )
    return Drawing(figure, caption, [item.run.id for item in items])


# --- Features ------------------------------------------------------------------------------------------------------


def _found_features(items: Sequence[PlannedRun], shards: Shards, pixels: np.ndarray, count: int) -> list[list[Any]]:
    """For each run the first convolutions' names and outputs [channels, h, w] for one image."""
    from pipeline.learn.feature_maps import feature_maps

    out = []
    for item in items:
        found = feature_maps(_network(item, shards), _images(pixels, item), count=count)
        out.append([(name, maps[0].numpy()) for name, maps in found])
    return out


def _show(axes: Any, values: np.ndarray) -> None:
    """A map in its own range, without the outermost hundredth: features have no unit that two networks share."""
    low, high = np.percentile(values, (0.5, 99.5))
    axes.imshow(values, cmap="gray", vmin=low, vmax=high if high > low else low + 1)


def _first_layer(plan: Plan, group: Group) -> Drawing:
    shown, items, shards = _shown(plan, group)
    pixels = read_pixels(shards, [one_image(shards)])
    found = _found_features(items, shards, pixels, 1)
    channels = min(CHANNELS, *(each[0][1].shape[0] for each in found))
    figure = style.new(0.9 + 1.0 * (2 + channels), 0.3 + 1.05 * len(found), images=True)
    grid = figure.subplots(len(found), 2 + channels, squeeze=False)
    for line, each, convolutions in zip(grid, shown, found, strict=True):
        _, maps = convolutions[0]
        line[0].imshow(pixels[0])
        _show(line[1], maps.mean(axis=0))
        for place in range(channels):
            _show(line[2 + place], maps[place])
        line[0].set_ylabel(each.series.title, rotation=0, ha="right", va="center", labelpad=6)
    for axes, title in zip(grid[0], ["picture", "mean", *(f"channel {i + 1}" for i in range(channels))], strict=True):
        axes.set_title(title, fontsize=8)
    for axes in grid.flatten():
        style.bare(axes)
    caption = (
        f"Output of the first convolution of {group.title}, {_who(shown, items)}, for one test image of "
        f"{group.dataset}: mean over the channels, and the first {channels}, each in its own range of grey."
    )
    return Drawing(figure, caption, [item.run.id for item in items])


def _features(plan: Plan, group: Group) -> Drawing:
    shown, items, shards = _shown(plan, group)
    pixels = read_pixels(shards, [one_image(shards)])
    found = _found_features(items, shards, pixels, CONVOLUTIONS)
    columns = max(map(len, found))
    kinds = ["mean", *(f"channel {i + 1}" for i in range(CHANNELS_OF_FIVE))]
    figure = style.new(1.2 + 1.05 * (1 + columns), 0.4 + 1.15 * len(kinds) * len(found))
    blocks = figure.subfigures(len(found), 1, squeeze=False)[:, 0]
    for block, each, convolutions in zip(blocks, shown, found, strict=True):
        block.suptitle(each.series.title, fontweight="bold", fontsize=9)
        grid = block.subplots(len(kinds), 1 + columns, squeeze=False)
        grid[0, 0].imshow(pixels[0])
        grid[0, 0].set_title("picture", fontsize=8)
        for column, (name, maps) in enumerate(convolutions, start=1):
            grid[0, column].set_title(f"{column}: {name}", fontsize=7)
            for line, values in zip(grid, [maps.mean(axis=0), *maps[:CHANNELS_OF_FIVE]], strict=False):
                _show(line[column], values)
        for line, kind in zip(grid, kinds, strict=True):
            line[1].set_ylabel(kind, fontsize=7)
        for axes in grid.flatten():
            style.bare(axes)
    caption = (
        f"Outputs of the first {columns} convolutions, in the order they run, of {group.title}, {_who(shown, items)}, "
        f"for one test image of {group.dataset}: mean over the channels, and the first {CHANNELS_OF_FIVE}, each in "
        "its own range of grey."
    )
    return Drawing(figure, caption, [item.run.id for item in items])
