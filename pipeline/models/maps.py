"""Images for people: each with its attention map over it, the prediction, and a scale that is the same for all maps."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from pipeline.core import files
from pipeline.core.console import visible

HIGHEST = 4.0  # even shares; ASSUMED: more is drawn in the same colour
BAR = 12  # pixels
FONT_SIZE = 12  # pixels
LEAST_WIDTH = 320  # pixels, for the text below a small image
INK, PAPER = (28, 36, 48), (255, 255, 255)


def draw_attention(path: Path, shown: np.ndarray, attention: np.ndarray, said: str) -> None:
    """Publish an image with its attention over it as PNG, and below it `said` and the scale.

    shown: uint8 [height, width, 3]. attention: the share of each patch [h, w]. A colour means the same on every map: a
    multiple of the even share 1 / (h · w), from 0 to `HIGHEST`.
    """
    shares = np.clip(attention * attention.size / HIGHEST, 0, 1)
    small = Image.fromarray((shares * 255).round().astype(np.uint8))
    wide = np.asarray(small.resize((shown.shape[1], shown.shape[0]), Image.Resampling.BILINEAR))
    blended = Image.fromarray((0.5 * shown + 0.5 * _colours()[wide]).astype(np.uint8))
    lines = [said, "attention, in multiples of an even share"]
    font = _font()
    line_height = FONT_SIZE + 4
    width = max(blended.width, LEAST_WIDTH)
    below = line_height * (len(lines) + 1) + BAR + 8
    page = Image.new("RGB", (width, blended.height + below), PAPER)
    page.paste(blended, ((width - blended.width) // 2, 0))
    draw = ImageDraw.Draw(page)
    y = blended.height + 4
    for line in lines:
        draw.text((4, y), _fitting(visible(line), width - 8, font), fill=INK, font=font)
        y += line_height
    _draw_scale(page, draw, y, font)
    with files.publish(path, durable=False) as file:
        page.save(file, "PNG")


def _draw_scale(page: Image.Image, draw: ImageDraw.ImageDraw, y: int, font: ImageFont.FreeTypeFont) -> None:
    """A bar of all colours at `y`, with the multiples below it."""
    length = page.width - 2 * BAR
    ramp = np.linspace(0, 255, length).round().astype(np.uint8)
    page.paste(Image.fromarray(np.broadcast_to(_colours()[ramp], (BAR, length, 3)).astype(np.uint8)), (BAR, y))
    for share in range(int(HIGHEST) + 1):
        text = f"{share}" + ("+" if share == HIGHEST else " (even)" if share == 1 else "")
        anchor = "la" if share == 0 else "ra" if share == HIGHEST else "ma"
        draw.text((BAR + length * share / HIGHEST, y + BAR + 1), text, fill=INK, font=font, anchor=anchor)


def _fitting(text: str, width: int, font: ImageFont.FreeTypeFont) -> str:
    """`text`, or as much of its beginning as is no wider than `width`."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1]
    return text + "…"


@cache
def _font() -> ImageFont.FreeTypeFont:
    """The one that matplotlib brings: it has the letters of many languages."""
    import matplotlib

    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf", FONT_SIZE)


@cache
def _colours() -> np.ndarray:
    """The colours of 256 steps from nothing (dark) to `HIGHEST` (yellow): float [256, 3]."""
    from matplotlib import colormaps

    return np.asarray(colormaps["inferno"](np.arange(256))[:, :3] * 255)
