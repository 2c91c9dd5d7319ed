"""A user's own images in one folder a class: folders give the labels, and the split where they are called so."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

from pipeline.core.console import counted, visible
from pipeline.data import folders
from pipeline.data.labels import clean, listed, unify
from pipeline.data.layouts.groups import groups_from_paths
from pipeline.data.layouts.masks import FOLDER, MASKS, are_left_out, find_masks
from pipeline.data.layouts.options import KEEP, Options
from pipeline.data.layouts.words import SPLITS, UNLABELLED
from pipeline.data.records import Listing, PassedOver, Record

IMAGES = re.compile(r"images?|imgs?|pict(?:ure)?s?|photos?|scans?|raw|originals?|data", re.IGNORECASE)


def folder_listing(root: Path, options: Options) -> Listing:
    """The listing of `root` by its folders."""
    found = folders.walk(root, leave_out=options.leave_out, volumes=options.volumes)
    notes: list[str] = []
    passed_over = list(found.passed_over)
    masks = find_masks(found.images, root)
    images = found.images
    if are_left_out(sorted(masks), root, options, notes):
        images = [path for path in images if path not in masks]
        passed_over += [PassedOver(path, MASKS) for path in sorted(masks)]
    records = [_record(path, root) for path in images]
    _check_folders(records, root, options)
    if options.group_from is not None:
        records = groups_from_paths(records, root, options.group_from, notes)
    spellings = Counter(label for record in records for label in record.labels or ())
    names = unify(spellings, options.similar_classes, what=f"classes of {root}")
    notes += names.notes
    records = [replace(r, labels=tuple(names.of[label] for label in r.labels)) if r.labels else r for r in records]
    if records and not any(record.labels for record in records):
        notes.append(
            "no image is in a folder of its class, so none has a label; if the raw folder is that of one class, give "
            "--raw the folder above it"
        )
    return Listing(
        classes=tuple(sorted(set(names.of.values()))),
        task="multi-class",
        records=records + found.unreadable,
        passed_over=tuple(passed_over),
        notes=tuple(notes),
    )


def _record(path: Path, root: Path) -> Record:
    parts = list(path.relative_to(root).parts[:-1])
    split = SPLITS.get(clean(parts[0]).lower()) if parts else None
    if split:
        parts = parts[1:]
    label = parts[0] if parts and clean(parts[0]).lower() not in UNLABELLED else None
    return Record(key=None, path=path, labels=(label,) if label else None, split=split)


def _check_folders(records: list[Record], root: Path, options: Options) -> None:
    """Raise `ValueError` for folders that are no classes by their names: next to the splits, or images and masks."""
    classes = Counter((record.labels[0], record.split) for record in records if record.labels)
    others = {name: count for (name, split), count in classes.items() if split is None}
    splits = {record.path.relative_to(root).parts[0] for record in records if record.split}
    if splits and others:
        said = listed(f"{visible(name)} ({counted(count, 'image')})" for name, count in sorted(others.items()))
        raise ValueError(
            f"next to {', '.join(visible(name) for name in sorted(splits))}, which are the split, {root} has {said}; "
            f"move them into a split, call them {UNLABELLED[0]}, or leave them out: --leave-out NAME"
        )
    of_images = sorted({name for name, _ in classes if IMAGES.fullmatch(name)})
    of_masks = sorted({name for name, _ in classes if FOLDER.fullmatch(name)})
    if of_images and of_masks and options.masks != KEEP:
        raise ValueError(
            f"{root} has folders of images and of masks, {listed(map(visible, of_images + of_masks))}, which are no "
            f"classes; give --raw {visible(str(root / of_images[0]))}, or take them for classes: --masks {KEEP}"
        )
