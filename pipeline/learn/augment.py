"""Augmentation of a batch on its device: every image has draws of its own and passes only the operations they name.

The draws are made on the CPU from a generator that the caller seeds by (seed, epoch, step), so they do not depend
on the device or the number of threads, and no step waits for the device to know them. `colour` changes the colours.
Perspective, rotation and flips are fused into one warp with one bilinear sampling; flips alone are exact and sample
nothing. Paper E.2.2; strengths and order after the reference notebook (fidelity 3a, 9–13). Greyscale, blur and
solarisation are for Table 9 and DINO.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from pipeline.learn.colour import NEUTRAL, Colours, Jitters, recolour
from pipeline.learn.hardware import to_device
from pipeline.runs.spec import Augment, Blur, Jitter


@dataclass(frozen=True)
class Draws:
    """A batch's random choices, on the CPU. Choices that are drawn for one image hold for every image of a batch."""

    colours: Colours
    warp: Tensor
    """[n, 3, 3], from output to input."""


def augment(pixels: Tensor, spec: Augment, generator: torch.Generator) -> Tensor:
    """uint8 [n, h, w, 3] → float32 [n, 3, h, w], augmented and normalised."""
    draws = draw(spec, len(pixels), pixels.shape[1], pixels.shape[2], generator)
    return normalise(warp(recolour(unit(pixels), draws.colours), draws.warp), spec)


def unit(pixels: Tensor) -> Tensor:
    """uint8 [n, h, w, 3] → float32 [n, 3, h, w] in [0, 1]."""
    planes = pixels.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format)
    return planes.div_(255)


def normalise(images: Tensor, spec: Augment) -> Tensor:
    """Subtract the channels' mean and divide by their standard deviation, in place."""
    return images.sub_(_channels(spec.mean, images.device)).div_(_channels(spec.std, images.device))


@lru_cache
def _channels(values: tuple[float, ...], device: torch.device) -> Tensor:
    """One value a channel, [3, 1, 1], copied to the device once."""
    return to_device(torch.tensor(values), device).view(3, 1, 1)


def draw(spec: Augment, n: int, height: int, width: int, generator: torch.Generator) -> Draws:
    """Every random choice for n images; the number of draws is the same whatever is chosen."""

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator, dtype=torch.float64)

    first, second = uniform(n) < spec.first_jitter.p, uniform(n) < spec.second_jitter.p
    jitters = (
        _draw_jitter(spec.first_jitter, first, uniform(n, 4), uniform(n, 4)),
        _draw_jitter(spec.second_jitter, second, uniform(n, 4), uniform(n, 4)),
    )
    bend = first & (uniform(n) < spec.perspective_p)
    matrix = _where(bend, perspective_warp(uniform(n, 4, 2) * spec.perspective, height, width))
    angle = (uniform(n) * 2 - 1) * math.radians(spec.degrees) * second
    matrix = matrix @ rotation_warp(angle, height, width)
    matrix = matrix @ _where(uniform(n) < spec.vertical_flip, _flip(n, 1, height))
    matrix = matrix @ _where(uniform(n) < spec.horizontal_flip, _flip(n, 0, width))
    # operations that were added later draw last, and only where the spec asks for them
    colours = Colours(
        jitters=tuple(
            drawn for drawn, jitter in zip(jitters, (spec.first_jitter, spec.second_jitter), strict=True) if jitter.p
        ),
        grey=uniform(n) < spec.grey if spec.grey else torch.zeros(n, dtype=torch.bool),
        sigma=_draw_sigma(spec.blur, uniform(n), uniform(n)) if spec.blur else torch.zeros(n, dtype=torch.float64),
        blur_side=spec.blur.side if spec.blur else 1,
        solarise=uniform(n) < spec.solarise if spec.solarise else torch.zeros(n, dtype=torch.bool),
    )
    return Draws(colours=colours, warp=matrix)


def _draw_sigma(spec: Blur, chance: Tensor, value: Tensor) -> Tensor:
    return torch.where(chance < spec.p, spec.least + (spec.most - spec.least) * value, 0.0)


def _draw_jitter(spec: Jitter, on: Tensor, order: Tensor, values: Tensor) -> Jitters:
    spans = torch.tensor([spec.brightness, spec.contrast, spec.saturation, spec.hue], dtype=torch.float64)
    neutral = torch.tensor(NEUTRAL, dtype=torch.float64)
    factors = torch.where(on[:, None], neutral + (values * 2 - 1) * spans, neutral)
    return Jitters(order=order.argsort(dim=1), factors=factors)


def warp(images: Tensor, matrix: Tensor, size: tuple[int, int] | None = None, outside: str = "zeros") -> Tensor:
    """Sample images [n, 3, h, w] at matrix [n, 3, 3] · (output point); outside is black, or the colour of the `border`.

    Points are in pixels, the first pixel's centre at (0.5, 0.5); `size` is the output's height and width. A matrix
    [1, 3, 3] holds for every image. An image that is only flipped is copied, not sampled.
    """
    _, _, height, width = images.shape
    size = size or (height, width)
    matrix = matrix.expand(len(images), 3, 3)
    flips = [_flips(m, height, width) if size == (height, width) else None for m in matrix.tolist()]
    bent = [i for i, axes in enumerate(flips) if axes is None]
    if len(bent) == len(images):
        return _sample(images, matrix, size, outside)
    parts = list(images.chunk(len(images)))
    if bent:
        sampled = _sample(torch.cat([parts[i] for i in bent]), matrix[bent], size, outside)
        for i, part in zip(bent, sampled.chunk(len(bent)), strict=True):
            parts[i] = part
    return torch.cat([part.flip(axes) if axes else part for part, axes in zip(parts, flips, strict=True)])


def _flips(matrix: list[list[float]], height: int, width: int) -> list[int] | None:
    """The axes of [n, 3, h, w] that a warp [3][3] reverses; None if it does anything else."""
    (a, b, x), (c, d, y), last = matrix
    if b or c or last != [0, 0, 1] or (a, x) not in ((1, 0), (-1, width)) or (d, y) not in ((1, 0), (-1, height)):
        return None
    return [axis for axis, sign in ((2, d), (3, a)) if sign < 0]


def _sample(images: Tensor, matrix: Tensor, size: tuple[int, int], outside: str) -> Tensor:
    n, _, height, width = images.shape
    rows, columns = size
    # grid_sample's points run from -1 to 1
    scale = matrix.new_tensor([[2 / width, 0, -1], [0, 2 / height, -1], [0, 0, 1]])
    m = to_device((scale @ matrix).to(images.dtype), images.device)
    across = m[:, :, 0, None] * (torch.arange(columns, device=m.device) + 0.5)  # [n, 3, columns]
    down = m[:, :, 1, None] * (torch.arange(rows, device=m.device) + 0.5) + m[:, :, 2, None]  # [n, 3, rows]
    depth = across[:, 2, None, :] + down[:, 2, :, None]
    grid = images.new_empty(n, rows, columns, 2)
    for axis in (0, 1):
        torch.div(across[:, axis, None, :] + down[:, axis, :, None], depth, out=grid[..., axis])
    return torch.nn.functional.grid_sample(images, grid, mode="bilinear", padding_mode=outside, align_corners=False)


def perspective_warp(inward: Tensor, height: int, width: int) -> Tensor:
    """The warp [n, 3, 3] that moves each corner inward by inward [n, 4 corners, x and y] of half a side.

    Corners are ordered clockwise from the top left, as in torchvision, whose draws are whole pixels; these are not.
    """
    start = inward.new_tensor([[0, 0], [width - 1, 0], [width - 1, height - 1], [0, height - 1]])
    sign = inward.new_tensor([[1, 1], [-1, 1], [-1, -1], [1, -1]])
    end = start + sign * inward * inward.new_tensor([width // 2, height // 2])  # [n, 4, 2]
    n = len(inward)
    system, right = inward.new_zeros(n, 8, 8), inward.new_zeros(n, 8)
    for corner in range(4):
        x, y = end[:, corner, 0], end[:, corner, 1]
        one, zero = torch.ones_like(x), torch.zeros_like(x)
        u, v = start[corner]
        system[:, 2 * corner] = torch.stack([x, y, one, zero, zero, zero, -u * x, -u * y], dim=1)
        system[:, 2 * corner + 1] = torch.stack([zero, zero, zero, x, y, one, -v * x, -v * y], dim=1)
        right[:, 2 * corner], right[:, 2 * corner + 1] = u, v
    solved = torch.linalg.solve(system, right)
    return torch.cat([solved, solved.new_ones(n, 1)], dim=1).view(n, 3, 3)


def rotation_warp(angle: Tensor, height: int, width: int) -> Tensor:
    """The warp [n, 3, 3] of a clockwise rotation by angle [n] (radians) about the centre."""
    cos, sin, zero, one = angle.cos(), angle.sin(), torch.zeros_like(angle), torch.ones_like(angle)
    x, y = width / 2, height / 2
    rows = [cos, sin, x - x * cos - y * sin, -sin, cos, y + x * sin - y * cos, zero, zero, one]
    return torch.stack(rows, dim=1).view(-1, 3, 3)


def _flip(n: int, axis: int, side: int) -> Tensor:
    matrix = torch.eye(3, dtype=torch.float64).repeat(n, 1, 1)
    matrix[:, axis, axis], matrix[:, axis, 2] = -1, side
    return matrix


def _where(chosen: Tensor, matrix: Tensor) -> Tensor:
    return torch.where(chosen.view(-1, 1, 1), matrix, torch.eye(3, dtype=matrix.dtype))
