"""Augmentation of a batch on its device: every image has draws of its own and passes only the operations they name.

The draws are made on the CPU from a generator that the caller seeds by (seed, epoch, step), so they do not depend
on the device or the number of threads, and no step waits for the device to know them. Colours change in place.
Perspective, rotation and flips are fused into one warp with one bilinear sampling; flips alone are exact and sample
nothing. Paper E.2.2; strengths and order after the reference notebook (fidelity 3a, 9–13). Greyscale, blur and
solarisation are for Table 9 and DINO.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from pipeline.learn.hardware import to_device
from pipeline.runs.spec import Augment, Blur, Jitter

GREY = (0.2989, 0.587, 0.114)  # ITU-R 601-2 luma, as torchvision rounds it
BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)
NEUTRAL = (1.0, 1.0, 1.0, 0.0)  # the factors that leave an image as it is


@dataclass(frozen=True)
class Colour:
    """One jitter's draws. order [n, 4]: which operation comes first to last; factors [n, 4] by operation.

    The factors of an image without jitter are `NEUTRAL`.
    """

    order: Tensor
    factors: Tensor


@dataclass(frozen=True)
class Draws:
    """A batch's random choices, on the CPU. Choices that are drawn for one image hold for every image of a batch."""

    colours: tuple[Colour, ...]
    warp: Tensor
    """[n, 3, 3], from output to input."""
    grey: Tensor | None
    """Which images become grey: bool [n]."""
    sigma: Tensor | None
    """The blur's, in pixels; 0: no blur. [n]."""
    blur: Blur | None
    solarise: Tensor | None
    """Which images are solarised: bool [n]."""


def augment(pixels: Tensor, spec: Augment, generator: torch.Generator) -> Tensor:
    """uint8 [n, h, w, 3] → float32 [n, 3, h, w], augmented and normalised."""
    draws = draw(spec, len(pixels), pixels.shape[1], pixels.shape[2], generator)
    return normalise(warp(recolour(unit(pixels), draws), draws.warp), spec)


def recolour(images: Tensor, draws: Draws) -> Tensor:
    """Everything but the warp, in place: jitters, greyscale, blur, solarisation of images [n, 3, h, w] in [0, 1]."""
    colours = [(colour.order.tolist(), colour.factors.tolist()) for colour in draws.colours]
    drawn = len(draws.warp)
    for i, part in enumerate(images.chunk(drawn)):
        for order, factors in colours:
            jitter(part, order[i], factors[i])
        if draws.grey is not None and draws.grey[i]:
            part.copy_(luma(part))
        if draws.sigma is not None and draws.blur is not None and draws.sigma[i]:
            part.copy_(blur(part, draws.sigma[i].item(), draws.blur.side))
        if draws.solarise is not None and draws.solarise[i]:
            part.copy_(torch.where(part >= 0.5, 1 - part, part))
    return images


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
    return torch.tensor(values, device=device).view(3, 1, 1)


def draw(spec: Augment, n: int, height: int, width: int, generator: torch.Generator) -> Draws:
    """Every random choice for n images; the number of draws is the same whatever is chosen."""

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator, dtype=torch.float64)

    first, second = uniform(n) < spec.first_jitter.p, uniform(n) < spec.second_jitter.p
    colours = (
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
    return Draws(
        colours=tuple(
            c for c, jitter in zip(colours, (spec.first_jitter, spec.second_jitter), strict=True) if jitter.p
        ),
        warp=matrix,
        grey=uniform(n) < spec.grey if spec.grey else None,
        sigma=_draw_sigma(spec.blur, uniform(n), uniform(n)) if spec.blur else None,
        blur=spec.blur,
        solarise=uniform(n) < spec.solarise if spec.solarise else None,
    )


def _draw_sigma(spec: Blur, chance: Tensor, value: Tensor) -> Tensor:
    return torch.where(chance < spec.p, spec.least + (spec.most - spec.least) * value, 0.0)


def _draw_jitter(spec: Jitter, on: Tensor, order: Tensor, values: Tensor) -> Colour:
    spans = torch.tensor([spec.brightness, spec.contrast, spec.saturation, spec.hue], dtype=torch.float64)
    neutral = torch.tensor(NEUTRAL, dtype=torch.float64)
    factors = torch.where(on[:, None], neutral + (values * 2 - 1) * spans, neutral)
    return Colour(order=order.argsort(dim=1), factors=factors)


def jitter(images: Tensor, order: Sequence[int], factors: Sequence[float]) -> None:
    """Brightness, contrast, saturation and hue of images [n, 3, h, w] in [0, 1] in the given order, in place.

    The first three are one blend, factor · image + (1 − factor) · reference, with black, the mean grey and the
    grey image as their references, clamped to [0, 1] (torchvision's definitions). A factor of at most 1 leaves
    [0, 1] only by rounding, so it is not clamped.
    """
    for operation in order:
        factor = factors[operation]
        if factor == NEUTRAL[operation]:
            continue
        if operation == HUE:
            shift_hue(images, factor)
            continue
        if operation == BRIGHTNESS:
            images.mul_(factor)
        elif operation == CONTRAST:
            images.lerp_(luma(images.mean(dim=(2, 3), keepdim=True)), 1 - factor)
        else:
            images.lerp_(luma(images), 1 - factor)
        if factor > 1:
            images.clamp_(0, 1)


def luma(images: Tensor) -> Tensor:
    """The brightness of images [n, 3, h, w]: [n, 1, h, w]."""
    red, green, blue = images.chunk(3, dim=1)
    return (red * GREY[0]).add_(green, alpha=GREY[1]).add_(blue, alpha=GREY[2])


def shift_hue(images: Tensor, shift: float) -> None:
    """Rotate the hue of RGB images [n, 3, h, w] by `shift` of a full turn, in place (HSV; Smith, 1978)."""
    red, green, blue = images.chunk(3, dim=1)
    top = torch.maximum(torch.maximum(red, green), blue)
    chroma = top - torch.minimum(torch.minimum(red, green), blue)
    divisor = torch.where(chroma == 0, 1.0, chroma)
    ramp = torch.where(green == top, (blue - red) / divisor + 2, (red - green) / divisor + 4)
    sixths = torch.where(red == top, (green - blue) / divisor, ramp).add_(6 * shift)
    for channel, offset in zip((red, green, blue), (5, 3, 1), strict=True):
        k = (sixths + offset).remainder_(6)
        torch.sub(top, chroma * torch.minimum(k, 4 - k).clamp_(0, 1), out=channel)


def blur(images: Tensor, sigma: float, side: int) -> Tensor:
    """Gaussian blur of images [n, 3, h, w] by sigma (pixels, above 0), mirrored at the edges.

    The kernel has `side` pixels on a side, fewer for an image smaller than half of that.
    """
    _, channels, height, width = images.shape
    reach = min(side // 2, height - 1, width - 1)
    distance = torch.arange(-reach, reach + 1, dtype=torch.float64, device=images.device)
    kernel = torch.exp(-0.5 * (distance / sigma) ** 2)
    kernel = (kernel / kernel.sum()).to(images.dtype).expand(channels, 1, 1, -1)
    out = torch.nn.functional.pad(images, (reach, reach, reach, reach), mode="reflect")
    for one in (kernel, kernel.mT):
        out = torch.nn.functional.conv2d(out, one, groups=channels)
    return out


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
