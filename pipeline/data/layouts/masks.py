"""Find segmentation masks among images: files that belong to another image and are no samples."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from pipeline.core.console import counted, visible
from pipeline.data.labels import listed
from pipeline.data.layouts.options import KEEP, LEAVE_OUT, Options

FEW = 5  # masks that are said; more are asked for
MASKS = "masks"

# `1_mask.png`, `1_mask_2.png`, `1-segmentation.png`, `1mask.png` of `1.png`
SUFFIX = re.compile(
    r"(.+?)(?:[ _.-](?:masks?|seg|segmentations?|superpixels|annotations?|annotated|labels?|gt|ground_?truth|roi)|mask)"
    r"(?:[ _-]?\d+)?"
)
FOLDER = re.compile(
    r"(?:.*[ _-])?(?:masks?|segmentations?|superpixels|annotations?|labels?|gt|ground[ _-]?truths?)", re.I
)


def find_masks(images: Iterable[Path], root: Path) -> set[Path]:
    """The files that look like masks: named `<image>_mask` or the like, or as an image and in a folder of masks.

    A name alone makes no mask: the image that it belongs to must be there.
    """
    paths = [(path, path.stem.lower().removesuffix(".nii")) for path in images]
    inside = {folder: is_masks_folder(folder, root) for folder in {path.parent for path, _ in paths}}
    owners = {stem for path, stem in paths if not inside[path.parent]}
    out = set()
    for path, stem in paths:
        match = SUFFIX.fullmatch(stem)
        if (match and match[1] in owners) or (inside[path.parent] and stem in owners):
            out.add(path)
    return out


def is_masks_folder(folder: Path, root: Path) -> bool:
    return any(FOLDER.fullmatch(part) for part in folder.relative_to(root).parts)


def are_left_out(masks: Sequence[Path], root: Path, options: Options, notes: list[str]) -> bool:
    """Whether these masks are no samples; raises `ValueError` if the user must say so."""
    if not masks or options.masks == KEEP:
        return False
    if options.masks == LEAVE_OUT:
        return True
    if len(masks) > FEW:
        names = listed(visible(path.relative_to(root).as_posix()) for path in masks)
        raise ValueError(
            f"{len(masks):,} files look like masks of other images: {names}; decide with --masks {LEAVE_OUT} or "
            f"--masks {KEEP} (as samples)"
        )
    said = counted(len(masks), "sample looks like a mask", "samples look like masks")
    notes.append(f"{said}; --masks {LEAVE_OUT} leaves masks out")
    return False
