"""How every figure looks, and its files: the same runs give the same bytes, PDF and PNG alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from pipeline.core import files

# Okabe and Ito's colours, told apart with any colour vision; the marker says the same again.
BLUE, ORANGE, GREEN, RED, PURPLE, SKY, GREY = "#0072B2 #E69F00 #009E73 #D55E00 #CC79A7 #56B4E9 #555555".split()
HEAT = "viridis"  # evenly darker to lighter, also in grey
COUNTS = "Blues"
INK, PALE = "#222222", "#D9D9D9"
FORMATS: dict[str, dict[str, Any]] = {  # neither may say when it was made
    "pdf": {"CreationDate": None, "Producer": None, "Creator": None},
    "png": {"Software": None},
}
RC: Any = {
    "font.family": "DejaVu Sans",  # comes with matplotlib, so every machine has it
    "font.size": 8.5,
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
class Look:
    """How the marks of one technique are drawn, the same in every figure."""

    colour: str
    marker: str


LOOKS = {"cass": Look(BLUE, "o"), "supervised": Look(GREY, "^"), "dino": Look(RED, "s")}
SPARE = (Look(GREEN, "D"), Look(PURPLE, "v"), Look(ORANGE, "P"), Look(SKY, "X"))
ARM_LINES: Any = ("-", "--", ":", "-.")


def looks(methods: Sequence[str]) -> list[Look]:
    """A look for each of some series by their methods: a method's own the first time, a spare one after."""
    out: list[Look] = []
    spared = 0
    for method in methods:
        own = LOOKS.get(method)
        if own is None or own in out:
            own, spared = SPARE[spared % len(SPARE)], spared + 1
        out.append(own)
    return out


def new(width: float, height: float, *, images: bool = False) -> Figure:
    """An empty figure of so many inches, of `images` packed close or of curves; use it inside `in_style`."""
    return Figure(figsize=(width, height), layout="compressed" if images else "constrained")


def in_style() -> Any:
    """The context in which a figure is made and saved."""
    return matplotlib.rc_context(RC)


def save(figure: Figure, folder: Path, name: str) -> list[str]:
    """Publish the figure as PDF and PNG; returns the files' names."""
    out = []
    for ending, metadata in FORMATS.items():
        with files.publish(folder / f"{name}.{ending}") as file:
            figure.savefig(file, format=ending, metadata=metadata)
        figure.set_layout_engine("none")  # laid out once: the slow part, and both files look the same
        out.append(f"{name}.{ending}")
    return out


def legend(figure: Figure, handles: Sequence[Any]) -> None:
    """One legend under the whole figure: in one row where it fits, else in as many columns as do."""
    widths = [len(str(handle.get_label())) + 8 for handle in handles]  # with the mark and the gap beside the text
    room = figure.get_figwidth() * 14  # characters of this size
    columns = len(handles) if sum(widths) <= room else max(1, int(room / max(widths)))
    figure.legend(handles=handles, loc="outside lower center", ncols=columns)


def percent(fraction: float) -> str:
    return f"{fraction * 100:g}%"


def bare(axes: Axes) -> None:
    """Leave nothing of the axes but what is drawn in them."""
    axes.set(xticks=[], yticks=[])
    axes.grid(False)
    for spine in axes.spines.values():
        spine.set_visible(False)


def whole_epochs(axes: Axes) -> None:
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
    axes.set_xlabel("epoch")
