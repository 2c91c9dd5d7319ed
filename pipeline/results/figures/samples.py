"""Which test images the figures show, and samples of every class (paper Figures 4 and 10 to 13)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from pipeline.core.seeds import derive
from pipeline.data.shards.index import Shards, shards_of
from pipeline.data.shards.read import read_pixels
from pipeline.data.splits import Labels, by_rarest_class
from pipeline.jobs.plan import Plan
from pipeline.results.collect import Cell
from pipeline.results.figures import style
from pipeline.results.figures.publish import DrawnFigure, NothingToDraw, PlannedFigure
from pipeline.runs.spec import DatasetRef

IMAGES_PER_CLASS = 6  # in a figure of samples
SAMPLE_FIGURES = {"autoimmune": "Figures 4, 10", "dermofit": "Figure 11", "brain_mri": "Figure 12", "isic": "Figure 13"}


def labelled_test(shards: Shards) -> list[int]:
    """The rows of the labelled test images."""
    rows = shards.of_split("test")
    return [row for row, names in zip(rows, shards.labels(rows), strict=True) if names is not None]


def shuffled(items: Sequence[int], purpose: str) -> list[int]:
    """The items in an order that depends on the purpose and their number alone."""
    return [items[i] for i in np.random.default_rng(derive("figures", purpose)).permutation(len(items))]


def one_image(shards: Shards) -> int:
    """The row of the test image that the single maps of a dataset show."""
    return shuffled(labelled_test(shards), "one picture")[0]


def proportional(labels: Sequence[Labels], classes: Sequence[str], n: int) -> list[int]:
    """Positions of n images, classes in proportion (largest remainders) but each at least once where n allows it.

    An image of several classes counts for its rarest. Where there are no more than n images, all are taken. Sorted.
    """
    positions = [i for i, names in enumerate(labels) if names is not None]
    if len(positions) <= n:
        return positions
    strata = by_rarest_class(labels, classes, shuffled(positions, "class-proportional"))
    names = sorted(strata)
    quota = {name: n * len(strata[name]) / len(positions) for name in names}
    minimum = 1 if n >= len(names) else 0
    taken = {name: max(minimum, int(quota[name])) for name in names}
    while (difference := n - sum(taken.values())) != 0:
        step = 1 if difference > 0 else -1
        adjustable = [
            name for name in names if (taken[name] < len(strata[name]) if step > 0 else taken[name] > minimum)
        ]
        taken[max(adjustable, key=lambda name: step * (quota[name] - taken[name]))] += step
    return sorted(i for name in names for i in strata[name][: taken[name]])


def shards_for(plan: Plan, ref: DatasetRef, size: int) -> Shards:
    """The shards of a run; `NothingToDraw` where they are not on this machine."""
    try:
        return shards_of(Path(plan.cluster.shards), ref, size=size)
    except ValueError as error:
        raise NothingToDraw(str(error)) from None


def samples(plan: Plan, cells: Sequence[Cell]) -> Iterator[PlannedFigure]:
    """Test images of every class, a figure for each dataset."""
    for ref, size in {spec.dataset: spec.image_size for spec in plan.wanted}.items():
        dataset = plan.title_of(ref)
        yield PlannedFigure(
            kind="samples",
            name=f"samples-{dataset}",
            dataset=dataset,
            paper=SAMPLE_FIGURES.get(ref.name, ""),
            draw=lambda ref=ref, size=size: _samples(plan, ref, size),  # type: ignore[misc]
            images=True,
        )


def _samples(plan: Plan, ref: DatasetRef, size: int) -> DrawnFigure:
    shards = shards_for(plan, ref, size)
    rows = shuffled(labelled_test(shards), "samples")
    labels = dict(zip(rows, shards.labels(rows), strict=True))
    of_class = {name: [row for row in rows if name in (labels[row] or ())] for name in shards.classes}
    columns = min(IMAGES_PER_CLASS, max(map(len, of_class.values()), default=0))
    if not columns:
        raise NothingToDraw("there is no labelled test image")
    side = 0.95
    figure = style.new_figure(1.3 + side * columns, 0.1 + (side + 0.05) * len(of_class), images=True)
    grid = figure.subplots(len(of_class), columns, squeeze=False)
    for (name, members), line in zip(of_class.items(), grid, strict=True):
        images = read_pixels(shards, members[:columns])
        for number, axes in enumerate(line):
            style.hide_axes(axes)
            if number < len(images):
                axes.imshow(images[number])
        line[0].set_ylabel(f"{name}\n({len(members):,})", rotation=0, ha="right", va="center", labelpad=6)
    caption = f"{ref.name}: test images of each class, chosen at random; in brackets, how many the test part has of it."
    return DrawnFigure(figure, caption, [])
