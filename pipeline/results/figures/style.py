"""The style of every figure, and its files: the same runs give the same bytes, in PDF and in PNG."""

from __future__ import annotations

import contextlib
import functools
import itertools
import logging
import math
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from pipeline.core import files

# Okabe and Ito's colours, distinct with any colour vision; each technique also has a marker of its own.
BLUE, ORANGE, GREEN, RED, PURPLE, SKY, GREY = "#0072B2 #E69F00 #009E73 #D55E00 #CC79A7 #56B4E9 #555555".split()
HEAT = "viridis"  # evenly darker to lighter, also in grey
COUNTS = "Blues"
INK = "#222222"
FORMATS: dict[str, dict[str, Any]] = {  # neither may hold the time at which it was made
    "pdf": {"CreationDate": None, "Producer": None, "Creator": None},
    "png": {"Software": None},
}
FONT = "DejaVu Sans"  # comes with matplotlib, so every machine has it
OTHER_SCRIPTS = (  # for characters that it lacks, those of these that a machine has
    *("Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans CJK KR", "Source Han Sans SC", "WenQuanYi Zen Hei"),
    *("Microsoft YaHei", "Yu Gothic", "Malgun Gothic", "PingFang SC", "Hiragino Sans", "Apple SD Gothic Neo"),
    *("Noto Sans Devanagari", "Noto Sans Bengali", "Noto Sans Thai", "Arial Unicode MS"),
)
RC: Any = {
    "font.size": 8.5,
    "text.parse_math": False,  # a class may have dollar signs in its name
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": "#888888",
    "axes.linewidth": 0.8,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E6E6E6",
    "grid.linewidth": 0.6,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "lines.linewidth": 1.6,
    "lines.markersize": 5,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "legend.handlelength": 2.8,
    "figure.titlesize": 10,
    "savefig.dpi": 200,
    "pdf.fonttype": 42,
    "image.interpolation": "none",
}


@dataclass(frozen=True)
class MarkerStyle:
    """The colour and marker of one technique, the same in every figure."""

    colour: str
    marker: str


METHOD_STYLES = {"cass": MarkerStyle(BLUE, "o"), "supervised": MarkerStyle(GREY, "^"), "dino": MarkerStyle(RED, "s")}
SPARE_STYLES = (MarkerStyle(GREEN, "D"), MarkerStyle(PURPLE, "v"), MarkerStyle(ORANGE, "P"), MarkerStyle(SKY, "X"))
ARM_LINES: Any = ("-", "--", ":", "-.")


def marker_styles(methods: Sequence[str]) -> list[MarkerStyle]:
    """A style for each series: its method's own the first time that the method comes, then spare ones."""
    out: list[MarkerStyle] = []
    spare = itertools.cycle(SPARE_STYLES)
    for method in methods:
        own = METHOD_STYLES.get(method)
        out.append(next(spare) if own is None or own in out else own)
    return out


def new_figure(width: float, height: float, *, images: bool = False) -> Figure:
    """An empty figure of this size in inches, for curves or for closely packed images; call it inside `in_style`."""
    return Figure(figsize=(width, height), layout="compressed" if images else "constrained")


def in_style() -> Any:
    """The context in which every figure is drawn and saved."""
    return matplotlib.rc_context({**RC, "font.family": _fonts()})


@functools.cache
def _fonts() -> list[str]:
    logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)  # of weights that such a font lacks
    listed = {font.fname for font in font_manager.fontManager.ttflist}  # when matplotlib first ran here
    for path in set(font_manager.findSystemFonts()) - listed:
        with contextlib.suppress(Exception):  # matplotlib cannot read every font, and raises what it likes
            font_manager.fontManager.addfont(path)
    installed = {font.name for font in font_manager.fontManager.ttflist}
    return [FONT, *(name for name in OTHER_SCRIPTS if name in installed)]


def save(figure: Figure, folder: Path, name: str) -> tuple[list[str], str]:
    """Publish the figure as PDF and PNG; returns the files' names, and the characters that no font here has.

    Call it as the only writer of the folder.
    """
    files.remove_temporaries(folder, f"{name}.")
    out = []
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        for ending, metadata in FORMATS.items():
            with files.publish(folder / f"{name}.{ending}") as file:
                figure.savefig(file, format=ending, metadata=metadata)
            figure.set_layout_engine("none")  # laying out is slow; done once, both files also look the same
            out.append(f"{name}.{ending}")
    missing = set()
    for warning in said:
        if lacking := re.match(r"Glyph (\d+) .* missing from", str(warning.message)):
            missing.add(chr(int(lacking[1])))
        else:
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
    return out, "".join(sorted(missing))


def legend(figure: Figure, handles: Sequence[Any]) -> None:
    """One legend under the whole figure: in one row where it fits, or else in as many columns as fit."""
    widths = [len(str(handle.get_label())) + 8 for handle in handles]  # with the marker and the gap next to the text
    room = figure.get_figwidth() * 14  # characters of the legend's font size
    columns = len(handles) if sum(widths) <= room else max(1, int(room / max(widths)))
    figure.legend(handles=handles, loc="outside lower center", ncols=columns)


def percent(fraction: float) -> str:
    return f"{fraction * 100:g}%"


def hide_axes(axes: Axes) -> None:
    """Hide ticks, grid and frame; what is drawn in the axes stays."""
    axes.set(xticks=[], yticks=[])
    axes.grid(False)
    for spine in axes.spines.values():
        spine.set_visible(False)


def whole_epochs(axes: Axes) -> None:
    """Name the horizontal axis, with ticks at whole epochs; a single epoch is in its middle."""
    first, last = axes.dataLim.intervalx
    if first == last:
        axes.set_xlim(first - 0.5, last + 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6, min_n_ticks=1))
    axes.set_xlabel("epoch")


def from_zero(*several: Axes) -> None:
    """Let vertical axes, which are to be equal, begin at zero and end above what is drawn, markers included."""
    top = max(axes.dataLim.y1 for axes in several)
    for axes in several:
        axes.set_ylim(0, top * 1.08 if 0 < top < math.inf else None)
