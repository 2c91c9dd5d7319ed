"""Random crops of a batch: one box an image, sampled once, bilinearly, at the side that its view wants.

The boxes are drawn on the CPU from the given generator. A crop is a warp (`augment.warp`), so that it and the flips are
one interpolation. It has no antialiasing: a crop that is reduced (DINO's 96-pixel crops, by up to 1.7) is slightly
sharper than torchvision's with antialiasing; enlarged crops are the same. At its edges a crop sees the image's next
pixel, where torchvision repeats the box's last.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.learn.augment import draw, normalise, unit, warp
from pipeline.learn.colour import join, recolour
from pipeline.runs.spec import Augment

TRIES = 10  # torchvision's, before it takes the whole image
RATIO = (3 / 4, 4 / 3)  # width to height, torchvision's


@dataclass(frozen=True)
class Crop:
    """A kind of crop: the part of the image's area that it keeps, and the side in pixels that it is resized to."""

    min_area: float
    max_area: float
    side: int

    def __post_init__(self) -> None:
        if not (0 < self.min_area <= self.max_area <= 1 and self.side > 0):
            raise ValueError(
                f"{self} is not possible; areas are parts of the image in (0, 1], the side is a number of pixels"
            )


def draw_boxes(crop: Crop, n: int, height: int, width: int, generator: torch.Generator) -> Tensor:
    """Boxes [n, 4] of whole pixels (left, top, width, height), distributed as those of torchvision's
    `RandomResizedCrop`.

    The whole image where none of ten tries fits (ours are square).
    """

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator, dtype=torch.float64)

    area = height * width * (crop.min_area + (crop.max_area - crop.min_area) * uniform(n, TRIES))
    low, high = (math.log(ratio) for ratio in RATIO)
    ratio = torch.exp(low + (high - low) * uniform(n, TRIES))
    columns, rows = (area * ratio).sqrt().round(), (area / ratio).sqrt().round()  # [n, TRIES]
    fits = (columns >= 1) & (columns <= width) & (rows >= 1) & (rows <= height)
    first = fits.int().argmax(dim=1, keepdim=True)  # the first that fits
    some = fits.any(dim=1)
    columns = torch.where(some, columns.gather(1, first)[:, 0], float(width))
    rows = torch.where(some, rows.gather(1, first)[:, 0], float(height))
    left = (uniform(n) * (width - columns + 1)).floor()
    top = (uniform(n) * (height - rows + 1)).floor()
    return torch.stack([left, top, columns, rows], dim=1)


def crop_warp(boxes: Tensor, side: int) -> Tensor:
    """The warp [n, 3, 3] from the points of a side × side crop to those of the image."""
    left, top, columns, rows = boxes.unbind(dim=1)
    matrix = torch.eye(3, dtype=boxes.dtype).repeat(len(boxes), 1, 1)
    matrix[:, 0, 0], matrix[:, 0, 2] = columns / side, left
    matrix[:, 1, 1], matrix[:, 1, 2] = rows / side, top
    return matrix


def recoloured_crops(
    pixels: Tensor, spec: Augment, crops: tuple[Crop, ...], generator: torch.Generator, *, one_draw: bool
) -> list[Tensor]:
    """Augment the whole image once and cut every crop out of it: float32 [n, 3, side, side] each.

    This is vit-pytorch's order. `one_draw` draws once for the whole batch, as its transforms do on a batch tensor.
    """
    n, height, width, _ = pixels.shape
    drawn = 1 if one_draw else n
    draws = draw(spec, drawn, height, width, generator)
    images = recolour(unit(pixels), draws.colours)
    out = []
    for crop in crops:
        boxes = draw_boxes(crop, drawn, height, width, generator)
        matrix = draws.warp @ crop_warp(boxes, crop.side)
        out.append(normalise(warp(images, matrix, (crop.side, crop.side), "border"), spec))
    return out


def cropped_then_recoloured(
    pixels: Tensor, views: Sequence[tuple[Augment, Crop]], generator: torch.Generator
) -> Tensor:
    """Cut crops and flip them, then augment their colours: float32 [views · n, 3, side, side], view by view.

    This is DINO's own order. All views have the same side, and normalise and blur alike.
    """
    n, height, width, _ = pixels.shape
    images, crops, colours = unit(pixels), [], []
    for spec, crop in views:
        draws = draw(spec, n, height, width, generator)
        boxes = draw_boxes(crop, n, height, width, generator)
        crops.append(warp(images, draws.warp @ crop_warp(boxes, crop.side), (crop.side, crop.side), "border"))
        colours.append(draws.colours)
    return normalise(recolour(torch.cat(crops), join(colours)), views[0][0])
