"""Draws planned figures into a folder and lists them in `figures.json`: what is drawn, what is not, and why.

The list is written last. Files that the old list names and the new one does not are removed, so the folder holds what
the list says.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from pipeline.core import files
from pipeline.results.figures import style

LIST = "figures.json"
BOXES = " No font of the machine that drew it has {}; they are boxes here (Noto Sans has most scripts)."
PATIENCE = 600.0  # seconds that a report waits for another one of the same folder


class NothingToDraw(Exception):
    """A figure has no data; the message says what is missing."""


@dataclass(frozen=True)
class DrawnFigure:
    """A figure with its caption."""

    figure: Figure
    caption: str
    runs: list[str]
    """The ids of the runs that it shows."""
    measured: dict[str, Any] = field(default_factory=dict)
    """Numbers of what it shows, for figures.json."""


@dataclass(frozen=True, kw_only=True)
class PlannedFigure:
    """A figure that is not drawn yet: nothing is read before `draw` is called."""

    kind: str
    name: str
    """The name of its files, without an ending."""
    dataset: str
    paper: str
    """The paper's figure; `as Figure 2` where that one shows another dataset; empty where the paper has none."""
    draw: Callable[[], DrawnFigure]
    """Raises `NothingToDraw`, and `ValueError` where the data is there and broken."""
    images: bool = False
    """Whether it shows single images, which may be of patients."""


@dataclass
class FigureList:
    """What became of a grid's figures, as entries of figures.json."""

    figures: list[dict[str, Any]] = field(default_factory=list)
    skipped: list[dict[str, str]] = field(default_factory=list)
    failed: list[dict[str, str]] = field(default_factory=list)


def draw_all(planned: Iterable[PlannedFigure], folder: Path, *, with_images: bool) -> FigureList:
    """Draw and publish every figure; those of single images only with `with_images`."""
    out = FigureList()
    with files.only_writer(folder / "figures", patience=PATIENCE):
        for each in planned:
            if each.images and not with_images:
                out.skipped.append(_reason(each, "it shows single images; give --with-images to draw it"))
                continue
            try:
                with style.in_style():
                    drawn = each.draw()
                    paths, boxes = style.save(drawn.figure, folder, each.name)
            except NothingToDraw as nothing:
                out.skipped.append(_reason(each, str(nothing)))
            except ValueError as error:
                out.failed.append(_reason(each, str(error)))
            else:
                out.figures.append(
                    {
                        "name": each.name,
                        "kind": each.kind,
                        "dataset": each.dataset,
                        "files": paths,
                        "caption": drawn.caption + (BOXES.format(boxes) if boxes else ""),
                        "paper": each.paper,
                        "runs": sorted(drawn.runs),
                        "pictures": each.images,
                        **({"measured": drawn.measured} if drawn.measured else {}),
                    }
                )
    return out


def _reason(planned: PlannedFigure, reason: str) -> dict[str, str]:
    return {"name": planned.name, "kind": planned.kind, "reason": reason}


def write_list(
    folder: Path, drawn: FigureList, *, head: dict[str, Any], kinds: Sequence[str], order: Sequence[str]
) -> None:
    """Publish `figures.json`; figures of other kinds than the `kinds` just drawn stay as the old list has them."""
    path = folder / LIST
    old = files.read_json(path, dict, keys=("figures", "skipped")) if path.exists() else {"figures": [], "skipped": []}
    before = {name for entry in old["figures"] for name in entry["files"]}
    value: dict[str, Any] = dict(head)
    for part, new in (("figures", drawn.figures), ("skipped", drawn.skipped + drawn.failed)):
        kept = [entry for entry in old[part] if entry["kind"] in order and entry["kind"] not in kinds]
        value[part] = sorted(kept + new, key=lambda entry: (order.index(entry["kind"]), entry["name"]))
    files.write_json(path, value)
    for name in before - {name for entry in value["figures"] for name in entry["files"]}:
        (folder / name).unlink(missing_ok=True)
