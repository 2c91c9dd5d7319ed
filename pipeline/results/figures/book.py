"""The figures of a grid and the list of them: what is drawn, what is not and why, and `figures.json`.

The list is written last; files that an earlier list names and the new one does not are removed, so that the folder
holds what the list says.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from pipeline.core import files
from pipeline.results.figures import style

LIST = "figures.json"


class Absent(Exception):
    """There is nothing to draw a figure from; the message says what is missing."""


@dataclass(frozen=True)
class Drawing:
    """A figure with what there is to say of it."""

    figure: Figure
    caption: str
    runs: list[str]
    """The ids of the runs it shows."""


@dataclass(frozen=True, kw_only=True)
class Sheet:
    """A figure to be: nothing is read before `draw` is called."""

    kind: str
    name: str
    """Of its files, without an ending."""
    dataset: str
    paper: str
    """The paper's figure, `as Figure 2` where that one shows another dataset; empty: none."""
    draw: Callable[[], Drawing]
    """Raises `Absent`; `ValueError` for what should be there and is broken."""
    images: bool = False
    """Whether it shows single images, which may be of patients."""


@dataclass
class Made:
    """What became of a grid's figures."""

    figures: list[dict[str, Any]]
    skipped: list[dict[str, str]]
    failed: list[dict[str, str]]


def make(sheets: Iterable[Sheet], folder: Path, *, with_images: bool) -> Made:
    """Draw and publish every sheet; single images only with `with_images`."""
    made = Made([], [], [])
    for sheet in sheets:
        if sheet.images and not with_images:
            made.skipped.append(_reason(sheet, "it shows single images; give --with-images to draw it"))
            continue
        try:
            with style.in_style():
                drawing = sheet.draw()
                paths = style.save(drawing.figure, folder, sheet.name)
        except Absent as absent:
            made.skipped.append(_reason(sheet, str(absent)))
        except ValueError as error:
            made.failed.append(_reason(sheet, str(error)))
        else:
            made.figures.append(
                {
                    "name": sheet.name,
                    "kind": sheet.kind,
                    "dataset": sheet.dataset,
                    "files": paths,
                    "caption": drawing.caption,
                    "paper": sheet.paper,
                    "runs": sorted(drawing.runs),
                    "pictures": sheet.images,
                }
            )
    return made


def _reason(sheet: Sheet, reason: str) -> dict[str, str]:
    return {"name": sheet.name, "kind": sheet.kind, "reason": reason}


def write_list(folder: Path, made: Made, *, head: dict[str, Any], kinds: Sequence[str], order: Sequence[str]) -> None:
    """Publish `figures.json`; figures of other kinds than the `kinds` just drawn stay as the old list has them."""
    path = folder / LIST
    old = files.read_json(path) if path.exists() else {"figures": [], "skipped": []}
    before = {name for entry in old["figures"] for name in entry["files"]}
    value: dict[str, Any] = dict(head)
    for part, new in (("figures", made.figures), ("skipped", made.skipped + made.failed)):
        kept = [entry for entry in old[part] if entry["kind"] in order and entry["kind"] not in kinds]
        value[part] = sorted(kept + new, key=lambda entry: (order.index(entry["kind"]), entry["name"]))
    files.write_json(path, value)
    for name in before - {name for entry in value["figures"] for name in entry["files"]}:
        (folder / name).unlink(missing_ok=True)
