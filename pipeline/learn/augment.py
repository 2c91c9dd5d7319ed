"""Augmentation of a whole batch on its device, every picture by its own draw.

The draws are made on the CPU from a generator that the caller seeds by (seed, epoch, step), so they do not depend
on the device or the number of threads. Perspective, rotation and flips are fused into one warp with one bilinear
sampling. Paper E.2.2; strengths and order after the reference notebook (fidelity 3a, 9–13). Greyscale, blur and
solarisation are for Table 9 and DINO.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.spec import Augment, Blur, Jitter

GREY = (0.2989, 0.587, 0.114)  # ITU-R 601-2 luma, as torchvision rounds it
BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)


@dataclass(frozen=True)
class Colour:
    """One jitter's draws. order [n, 4]: which operation comes first to last; factors [n, 4] by operation."""

    order: Tensor
    factors: Tensor
    with_hue: bool


@dataclass(frozen=True)
class Draws:
    """A batch's random choices, on the CPU; drawn for one picture, they hold for every picture of a batch."""

    colours: tuple[Colour, ...]
    warp: Tensor
    """[n, 3, 3], from output to input."""
    grey: Tensor | None
    """Which pictures lose their colours: bool [n]."""
    sigma: Tensor | None
    """Of the blur, in pixels, 0 where there is none: [n]."""
    blur: Blur | None
    solarise: Tensor | None
    """Which pictures are solarised: bool [n]."""


def augment(pixels: Tensor, spec: Augment, generator: torch.Generator) -> Tensor:
    """uint8 [n, h, w, 3] → float32 [n, 3, h, w], augmented and normalised."""
    draws = draw(spec, len(pixels), pixels.shape[1], pixels.shape[2], generator)
    return normalise(warp(recolour(unit(pixels), draws), draws.warp), spec)


def recolour(images: Tensor, draws: Draws) -> Tensor:
    """Everything but the warp: jitters, greyscale, blur, solarisation of images [n, 3, h, w] in [0, 1]."""
    for colour in draws.colours:
        images = jitter(images, colour)
    if draws.grey is not None:
        images = torch.where(_each(draws.grey, images), luma(images), images)
    if draws.sigma is not None and draws.blur is not None:
        images = blur(images, draws.sigma, draws.blur.side)
    if draws.solarise is not None:
        images = torch.where(_each(draws.solarise, images) & (images >= 0.5), 1 - images, images)
    return images


def unit(pixels: Tensor) -> Tensor:
    """uint8 [n, h, w, 3] → float32 [n, 3, h, w] in [0, 1]."""
    return pixels.permute(0, 3, 1, 2).float().div_(255).contiguous()


def normalise(images: Tensor, spec: Augment) -> Tensor:
    """Subtract the channels' mean and divide by their standard deviation."""
    mean = images.new_tensor(spec.mean).view(1, 3, 1, 1)
    std = images.new_tensor(spec.std).view(1, 3, 1, 1)
    return (images - mean) / std


def draw(spec: Augment, n: int, height: int, width: int, generator: torch.Generator) -> Draws:
    """Every random choice for n pictures; the same number of draws whatever is chosen."""

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
    # what came later draws last, and only where it is asked for
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
    neutral = torch.tensor([1.0, 1.0, 1.0, 0.0], dtype=torch.float64)
    factors = torch.where(on[:, None], neutral + (values * 2 - 1) * spans, neutral)
    return Colour(order=order.argsort(dim=1), factors=factors.float(), with_hue=spec.hue > 0)


def jitter(images: Tensor, colour: Colour) -> Tensor:
    """Brightness, contrast, saturation (and hue) in each picture's own order, clamped to [0, 1] after each.

    The first three are one blend, factor · image + (1 − factor) · reference, with black, the mean grey and the
    grey picture as their references (torchvision's definitions).
    """
    device = images.device
    factors = colour.factors.to(device)
    for place in range(4):
        operation = colour.order[:, place].to(device)
        factor = factors.gather(1, operation[:, None]).view(-1, 1, 1, 1)
        kind = operation.view(-1, 1, 1, 1)
        grey = luma(images)
        mean = grey.mean(dim=(2, 3), keepdim=True)
        reference = torch.where(kind == CONTRAST, mean, grey)
        reference = torch.where(kind == BRIGHTNESS, torch.zeros_like(reference), reference)
        blended = (factor * images + (1 - factor) * reference).clamp_(0, 1)
        if colour.with_hue:  # dear, so for those alone whose turn it is
            turn = (colour.order[:, place] == HUE).expand(len(images)).nonzero()[:, 0].to(device)
            shifted = shift_hue(images[turn], factor.expand(len(images), 1, 1, 1)[turn])
            images = blended.index_copy(0, turn, shifted)
        else:
            images = torch.where(kind == HUE, images, blended)
    return images


def luma(images: Tensor) -> Tensor:
    """The brightness of images [n, 3, h, w]: [n, 1, h, w]."""
    return (images * images.new_tensor(GREY).view(1, 3, 1, 1)).sum(dim=1, keepdim=True)


def shift_hue(images: Tensor, shift: Tensor) -> Tensor:
    """Turn the hue of RGB images [n, 3, h, w] by `shift` [n, 1, 1, 1] of a full turn (HSV; Smith, 1978)."""
    top, low = images.amax(dim=1, keepdim=True), images.amin(dim=1, keepdim=True)
    chroma = top - low
    divisor = torch.where(chroma == 0, torch.ones_like(chroma), chroma)
    red, green, blue = images.unbind(dim=1)
    ramps = torch.stack([(green - blue), (blue - red), (red - green)], dim=1) / divisor
    sector = images.argmax(dim=1, keepdim=True)
    hue = (ramps.gather(1, sector) + 2 * sector) / 6 + shift
    offset = images.new_tensor([5.0, 3.0, 1.0]).view(1, 3, 1, 1)
    k = (offset + hue.remainder(1) * 6).remainder(6)
    return top - chroma * torch.minimum(k, 4 - k).clamp(0, 1)


def blur(images: Tensor, sigma: Tensor, side: int) -> Tensor:
    """Gaussian blur of images [n, 3, h, w], each by its own sigma [n] (pixels; 0 leaves it), mirrored at the edges.

    The kernel has `side` pixels on a side, fewer where the picture is smaller than half of it.
    """
    n, channels, height, width = images.shape
    reach = min(side // 2, height - 1, width - 1)
    distance = torch.arange(-reach, reach + 1, dtype=torch.float64)
    kernel = torch.exp(-0.5 * (distance / sigma.double().clamp(min=1e-3)[:, None]) ** 2)  # [n, side]; σ → 0: one
    kernel = (kernel / kernel.sum(dim=1, keepdim=True)).to(images.device, images.dtype)
    kernel = kernel.expand(n, -1).repeat_interleave(channels, dim=0)  # [n · 3, side]
    flat = torch.nn.functional.pad(images, (reach, reach, reach, reach), mode="reflect").flatten(0, 1)[None]
    flat = torch.nn.functional.conv2d(flat, kernel[:, None, None, :], groups=n * channels)
    flat = torch.nn.functional.conv2d(flat, kernel[:, None, :, None], groups=n * channels)
    return flat.view(n, channels, height, width)


def warp(images: Tensor, matrix: Tensor, size: tuple[int, int] | None = None, outside: str = "zeros") -> Tensor:
    """Sample images [n, 3, h, w] at matrix [n, 3, 3] · (output point); outside is black, or the `border`'s colour.

    Points are in pixels, the first pixel's centre at (0.5, 0.5); `size` is the output's height and width.
    """
    _, _, height, width = images.shape
    matrix = matrix.to(images.device, images.dtype)
    rows, columns = size or (height, width)
    x = torch.arange(columns, device=images.device, dtype=images.dtype) + 0.5
    y = torch.arange(rows, device=images.device, dtype=images.dtype) + 0.5
    m = matrix.view(-1, 9, 1, 1)
    points = [m[:, 3 * i] * x + m[:, 3 * i + 1] * y[:, None] + m[:, 3 * i + 2] for i in range(3)]  # [n, h, w] each
    grid = torch.stack([points[0] / points[2] * (2 / width) - 1, points[1] / points[2] * (2 / height) - 1], dim=-1)
    grid = grid.expand(len(images), -1, -1, -1)
    return torch.nn.functional.grid_sample(images, grid, mode="bilinear", padding_mode=outside, align_corners=False)


def perspective_warp(inward: Tensor, height: int, width: int) -> Tensor:
    """The warp [n, 3, 3] that moves each corner inward by inward [n, 4 corners, x and y] of half a side.

    Corners run clockwise from the top left, as torchvision's; its draws are whole pixels, these are not.
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
    """The warp [n, 3, 3] of a clockwise turn by angle [n] (radians) about the centre."""
    cos, sin, zero, one = angle.cos(), angle.sin(), torch.zeros_like(angle), torch.ones_like(angle)
    x, y = width / 2, height / 2
    rows = [cos, sin, x - x * cos - y * sin, -sin, cos, y + x * sin - y * cos, zero, zero, one]
    return torch.stack(rows, dim=1).view(-1, 3, 3)


def _flip(n: int, axis: int, side: int) -> Tensor:
    matrix = torch.eye(3, dtype=torch.float64).repeat(n, 1, 1)
    matrix[:, axis, axis], matrix[:, axis, 2] = -1, side
    return matrix


def _each(chosen: Tensor, images: Tensor) -> Tensor:
    return chosen.to(images.device).view(-1, 1, 1, 1)


def _where(chosen: Tensor, matrix: Tensor) -> Tensor:
    return torch.where(chosen.view(-1, 1, 1), matrix, torch.eye(3, dtype=matrix.dtype))
