"""Colour changes of a batch: jitters, greyscale, blur and solarisation, each image by draws of its own.

There are two ways to do the same. A CPU takes one image after another, which stays in its cache. A GPU takes all images
that have the same operation next together: it computes faster than the host can ask for one image after another.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from pipeline.learn.hardware import to_device

GREY = (0.2989, 0.587, 0.114)  # ITU-R 601-2 luma, as torchvision rounds it
BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)
NEUTRAL = (1.0, 1.0, 1.0, 0.0)  # the factors that leave an image as it is


@dataclass(frozen=True)
class Jitters:
    """One jitter's draws. order [n, 4]: which operation comes first to last; factors [n, 4] by operation.

    The factors of an image without jitter are `NEUTRAL`.
    """

    order: Tensor
    factors: Tensor


@dataclass(frozen=True)
class Colours:
    """A batch's random choices of colour, on the CPU, in the order in which they are applied."""

    jitters: tuple[Jitters, ...]
    grey: Tensor
    """Which images become grey: bool [n]."""
    sigma: Tensor
    """The blur's, in pixels; 0: no blur. [n]."""
    blur_side: int
    """Pixels on a side of the blur's kernel."""
    solarise: Tensor
    """Which images are solarised: bool [n]."""

    def __len__(self) -> int:
        return len(self.grey)


def join(parts: Sequence[Colours]) -> Colours:
    """The choices of several batches as those of one; they have as many jitters and the same kernel."""
    first, *rest = parts
    assert all(len(part.jitters) == len(first.jitters) and part.blur_side == first.blur_side for part in rest)
    jitters = tuple(
        Jitters(order=torch.cat([one.order for one in same]), factors=torch.cat([one.factors for one in same]))
        for same in zip(*(part.jitters for part in parts), strict=True)
    )
    return Colours(
        jitters=jitters,
        grey=torch.cat([part.grey for part in parts]),
        sigma=torch.cat([part.sigma for part in parts]),
        blur_side=first.blur_side,
        solarise=torch.cat([part.solarise for part in parts]),
    )


def recolour(images: Tensor, colours: Colours) -> Tensor:
    """Images [n, 3, h, w] in [0, 1] with all changes of colour; their memory may be written to."""
    return (together if images.is_cuda else one_by_one)(images, colours)


def one_by_one(images: Tensor, colours: Colours) -> Tensor:
    """As `recolour`, image by image, in place."""
    jitters = [(jitter.order.tolist(), jitter.factors.tolist()) for jitter in colours.jitters]
    for i, part in enumerate(images.chunk(len(colours))):
        for order, factors in jitters:
            jitter(part, order[i], factors[i])
        if colours.grey[i]:
            part.copy_(luma(part))
        if colours.sigma[i]:
            part.copy_(blur(part, colours.sigma[i].item(), colours.blur_side))
        if colours.solarise[i]:
            part.copy_(solarise(part))
    return images


def together(images: Tensor, colours: Colours) -> Tensor:
    """As `recolour`, with one operation for all images that have the same one next; the bits are the same.

    The numbers go to the device in one copy. A group's images are put together for their operation and taken apart
    again, as views.
    """
    groups = [group for jitter in colours.jitters for group in groups_of(jitter)]
    values = [_value(operation, factor) for operation, rows in groups for _, factor in rows]
    blurred = [(i, sigma) for i, sigma in enumerate(colours.sigma.tolist()) if sigma]
    kernels = [gaussian(sigma, _reach(images, colours.blur_side)) for _, sigma in blurred]
    numbers = torch.cat([torch.tensor(values, dtype=images.dtype), *[kernel.to(images.dtype) for kernel in kernels]])
    numbers = to_device(numbers, images.device)
    parts = list(images.chunk(len(colours)))

    def change(rows: Sequence[int], how: Callable[[Tensor], Tensor]) -> None:
        if rows:
            changed = how(torch.cat([parts[row] for row in rows]))
            for row, part in zip(rows, changed.chunk(len(rows)), strict=True):
                parts[row] = part

    each = len(images) // len(colours)  # images with the same choices
    for operation, rows in groups:
        value, numbers = numbers[: len(rows)].view(-1, 1).expand(-1, each).reshape(-1, 1, 1, 1), numbers[len(rows) :]
        tame = each * sum(factor <= 1 for _, factor in rows)
        change([row for row, _ in rows], partial(_apply, operation, value=value, tame=tame))
    change(colours.grey.nonzero().flatten().tolist(), lambda part: luma(part).repeat(1, 3, 1, 1))
    if blurred:
        weights = numbers.view(len(blurred), 1, -1).expand(-1, each, -1).reshape(len(blurred) * each, -1)
        change([row for row, _ in blurred], partial(blur_each, weights=weights))
    change(colours.solarise.nonzero().flatten().tolist(), solarise)
    return torch.cat(parts)


def groups_of(jitters: Jitters) -> list[tuple[int, list[tuple[int, float]]]]:
    """The operations of a jitter in an order that is every image's own: each with its images and their factors.

    Factors up to 1, which are not clamped, come first.
    """
    out = []
    order, factors = jitters.order.tolist(), jitters.factors.tolist()
    for turn in range(4):
        for operation in range(4):
            rows = [
                (i, factors[i][operation])
                for i, mine in enumerate(order)
                if mine[turn] == operation and factors[i][operation] != NEUTRAL[operation]
            ]
            if rows:
                out.append((operation, sorted(rows, key=lambda row: row[1] > 1)))
    return out


def jitter(images: Tensor, order: Sequence[int], factors: Sequence[float]) -> None:
    """Brightness, contrast, saturation and hue of images [n, 3, h, w] in [0, 1] in the given order, in place.

    The first three are one blend, factor · image + (1 − factor) · reference, with black, the mean grey and the
    grey image as their references, clamped to [0, 1] (torchvision's definitions). A factor of at most 1 leaves
    [0, 1] only by rounding, so it is not clamped.
    """
    for operation in order:
        factor = factors[operation]
        if factor != NEUTRAL[operation]:
            _apply(operation, images, _value(operation, factor), len(images) if factor <= 1 else 0)


def _value(operation: int, factor: float) -> float:
    """The number that an operation computes with."""
    if operation == HUE:
        return 6 * factor
    return factor if operation == BRIGHTNESS else 1 - factor


def _apply(operation: int, images: Tensor, value: float | Tensor, tame: int) -> Tensor:
    """One operation in place; `value` is one for all images or [n, 1, 1, 1]. All but the first `tame` are clamped."""
    if operation == HUE:
        shift_hue(images, value)
        return images
    if operation == BRIGHTNESS:
        images.mul_(value)
    elif operation == CONTRAST:
        images.lerp_(luma(images.mean(dim=(2, 3), keepdim=True)), value)
    else:
        images.lerp_(luma(images), value)
    if tame < len(images):
        images[tame:].clamp_(0, 1)
    return images


def luma(images: Tensor) -> Tensor:
    """The brightness of images [n, 3, h, w]: [n, 1, h, w]."""
    red, green, blue = images.chunk(3, dim=1)
    return (red * GREY[0]).add_(green, alpha=GREY[1]).add_(blue, alpha=GREY[2])


def shift_hue(images: Tensor, sixths_of_turn: float | Tensor) -> None:
    """Rotate the hue of RGB images [n, 3, h, w] by some sixths of a full turn, in place (HSV; Smith, 1978)."""
    red, green, blue = images.chunk(3, dim=1)
    top = torch.maximum(torch.maximum(red, green), blue)
    chroma = top - torch.minimum(torch.minimum(red, green), blue)
    divisor = torch.where(chroma == 0, 1.0, chroma)
    ramp = torch.where(green == top, (blue - red) / divisor + 2, (red - green) / divisor + 4)
    sixths = torch.where(red == top, (green - blue) / divisor, ramp).add_(sixths_of_turn)
    for channel, offset in zip((red, green, blue), (5, 3, 1), strict=True):
        k = (sixths + offset).remainder_(6)
        torch.sub(top, chroma * torch.minimum(k, 4 - k).clamp_(0, 1), out=channel)


def blur(images: Tensor, sigma: float, side: int) -> Tensor:
    """Gaussian blur of images [n, 3, h, w] by sigma (pixels, above 0), mirrored at the edges.

    The kernel has `side` pixels on a side, fewer for an image smaller than half of that.
    """
    return blur_each(images, gaussian(sigma, _reach(images, side)).to(images).expand(len(images), -1))


def _reach(images: Tensor, side: int) -> int:
    """The pixels of a blur's kernel on each side of its centre."""
    return min(side // 2, images.shape[2] - 1, images.shape[3] - 1)


def gaussian(sigma: float, reach: int) -> Tensor:
    """The weights of 2 · reach + 1 pixels, float64 on the CPU."""
    distance = torch.arange(-reach, reach + 1, dtype=torch.float64)
    kernel = torch.exp(-0.5 * (distance / sigma) ** 2)
    return kernel / kernel.sum()


def blur_each(images: Tensor, weights: Tensor) -> Tensor:
    """Blur every image [n, 3, h, w] by weights [n, pixels] of its own, along both axes, mirrored at the edges."""
    n, channels, height, width = images.shape
    kernel = weights.repeat_interleave(channels, dim=0)[:, None, None, :]  # [n · channels, 1, 1, pixels]
    reach = weights.shape[1] // 2
    out = torch.nn.functional.pad(images, (reach, reach, reach, reach), mode="reflect").flatten(0, 1)[None]
    for one in (kernel, kernel.mT):
        out = torch.nn.functional.conv2d(out, one, groups=n * channels)
    return out.view(images.shape)


def solarise(images: Tensor) -> Tensor:
    """All values from one half on, inverted."""
    return torch.where(images >= 0.5, 1 - images, images)
