"""Whole-slide images, as openslide reads them (Aperio, Hamamatsu, Leica, tiled TIFF pyramids, …), cut into tiles.

Tiles form a grid at a given number of micrometres a pixel, or of a level of the slide. A tile is background, and no
sample, if less than a tenth of its pixels are coloured: their greatest and least of red, green and blue differ by 20 of
255 or more, in a view of the slide at a low resolution. The label that was photographed with a slide is never opened.
"""

from __future__ import annotations

import io
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pipeline.core.seeds import derive
from pipeline.data.decoders.formats import BadImage
from pipeline.data.formats.reading import Found, Part, Reading, Stamp, check_count, missing, parse_tiles
from pipeline.data.formats.words import no_words
from pipeline.data.images import Decoded

DAMAGED = "is a slide that is damaged or cut off"
COLOURED, SHARE = 20, 0.1
VIEW = 2048  # the longest side of the view that background is told in
SHEET = 1024  # of the drawn sheet
STRIP = 8_000_000  # pixels that are read at once for a view
MAX_VIEW = 2_000_000_000  # pixels of the level that a view is made of
MAX_GRID = 10_000_000  # places for tiles, each of which is checked


class Grid(NamedTuple):
    """The tiles of a slide, in pixels of its finest level."""

    level: int
    """From which tiles are read."""
    scale: float
    """Pixels of the finest level a pixel of that level."""
    side: float
    step: float
    columns: int
    rows: int


def find_images(path: Path, reading: Reading) -> Found | None:
    """The tiles of a slide that are no background, by column and row; None for what is no slide."""
    with no_words(DAMAGED):
        openslide = _library()
        if openslide.OpenSlide.detect_format(path) is None:
            return None
        with openslide.OpenSlide(path) as slide:
            grid = _grid(slide, reading)
            parts = _tissue(slide, grid)
        if not parts:
            raise BadImage("is a slide without a tile that is not background")
        if reading.tiles_most is not None and len(parts) > reading.tiles_most:
            rng = np.random.default_rng(derive("tiles", grid.columns, grid.rows, len(parts)))
            parts = [parts[n] for n in sorted(rng.permutation(len(parts))[: reading.tiles_most])]
        check_count(len(parts))
        return Found(parts=tuple(parts), kind="slide")


def decode(path: Path, stamp: Stamp, part: Part, reading: Reading, *, channels: int) -> Decoded:
    """The pixels of a tile; what is outside the scan is white."""
    with no_words(DAMAGED):
        slide = _kept(path, stamp)
        grid = _grid(slide, reading)
        corner = tuple(int(number * grid.step) for number in part)
        side = max(1, round(grid.side / grid.scale))
        rgb = _on_white(slide.read_region(corner, grid.level, (side, side)))
    pixels = np.zeros((side, side, channels), np.uint8)
    pixels[..., :3] = np.asarray(rgb)
    return Decoded(pixels, side, side, (f"tiles of slides at {reading.tiles}",))


def draw_tiles(path: Path, parts: list[Part], reading: Reading) -> bytes:
    """A PNG of a slide with the outlines of its tiles."""
    from PIL import Image, ImageDraw

    with no_words(DAMAGED), _library().OpenSlide(path) as slide:
        grid = _grid(slide, reading)
        pixels, scale = _view(slide, SHEET)
    view = Image.fromarray(pixels)
    draw = ImageDraw.Draw(view)
    for column, row in parts:
        left, top = column * grid.step / scale, row * grid.step / scale
        draw.rectangle((left, top, left + grid.side / scale, top + grid.side / scale), outline="black")
    out = io.BytesIO()
    view.save(out, "PNG")
    return out.getvalue()


def _library() -> Any:
    try:
        import openslide
    except ImportError:
        raise missing("medical", "openslide") from None
    return openslide


@lru_cache(maxsize=1)
def _kept(path: Path, stamp: Stamp) -> Any:
    """An open slide, whose tiles are asked for one after another; `stamp` tells one version from another."""
    return _library().OpenSlide(path)


def _grid(slide: Any, reading: Reading) -> Grid:
    kind, value = parse_tiles(reading.tiles or "")
    if kind == "level":
        level = int(value)
        if level >= slide.level_count:
            raise BadImage(f"is a slide of {slide.level_count} levels; --tiles asks for level {level}")
        wanted = float(slide.level_downsamples[level])
    else:
        try:
            own = float(slide.properties["openslide.mpp-x"])
        except (KeyError, ValueError):
            raise BadImage("is a slide that does not say its micrometres a pixel; give --tiles level=N") from None
        wanted = value / own
        if not 0.5 <= wanted < 1e6:
            raise BadImage("is a slide without the resolution that --tiles asks for")
        level = slide.get_best_level_for_downsample(wanted * 1.01)
    side = reading.tile_side * wanted
    step = (reading.tile_side - reading.tile_overlap) * wanted
    width, height = slide.dimensions
    columns, rows = (max(0, int((length - side) // step) + 1) for length in (width, height))
    if columns * rows > MAX_GRID:
        raise BadImage(f"is a slide of {columns:,} × {rows:,} tiles, too many; give a larger --tile-side")
    return Grid(level, float(slide.level_downsamples[level]), side, step, columns, rows)


def _tissue(slide: Any, grid: Grid) -> list[Part]:
    """The tiles that are no background."""
    view, scale = _view(slide, VIEW)
    coloured = view.max(axis=2).astype(np.int16) - view.min(axis=2) >= COLOURED
    side = max(1, int(grid.side / scale))
    out: list[Part] = []
    for row in range(grid.rows):
        for column in range(grid.columns):
            left, top = int(column * grid.step / scale), int(row * grid.step / scale)
            tile = coloured[top : top + side, left : left + side]
            if tile.size and tile.mean() >= SHARE:
                out.append((column, row))
    return out


def _view(slide: Any, longest: int) -> tuple[np.ndarray, float]:
    """The whole slide as uint8 [h, w, 3], read in strips, and how many pixels of the finest level one of it is wide."""
    level = slide.get_best_level_for_downsample(max(1.0, max(slide.dimensions) / longest))
    width, height = slide.level_dimensions[level]
    if width * height > MAX_VIEW:
        raise BadImage("is a slide without a level of low resolution; save it as a pyramid")
    down = float(slide.level_downsamples[level])
    factor = max(1, round(max(width, height) / longest))
    rows = max(1, STRIP // (width * factor)) * factor
    strips = []
    for top in range(0, height, rows):
        strip = slide.read_region((0, round(top * down)), level, (width, min(rows, height - top)))
        strips.append(np.asarray(_on_white(strip).reduce(factor)))
    return np.concatenate(strips), factor * down


def _on_white(image: Any) -> Any:
    """RGB; what is outside the scan is white."""
    from PIL import Image

    white = Image.new("RGBA", image.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, image).convert("RGB")
