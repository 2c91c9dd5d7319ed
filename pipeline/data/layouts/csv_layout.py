"""A user's own images with a CSV file next to them, or one a split: paths, labels, groups and splits by its columns."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import replace
from pathlib import Path

from pipeline.core.console import counted, visible
from pipeline.data import folders
from pipeline.data.labels import APART, unify
from pipeline.data.layouts.groups import groups_from_paths
from pipeline.data.layouts.masks import MASKS, are_left_out, find_masks
from pipeline.data.layouts.options import LEAVE_OUT, Options
from pipeline.data.layouts.paths import Files
from pipeline.data.layouts.rows import RowReader
from pipeline.data.layouts.sources import Source, read_sources
from pipeline.data.records import Listing, PassedOver, Record, mark_duplicates, place

ENOUGH = 10  # rows; of fewer, it says nothing that all of them look alike
OTHER_NAMES = "other names of files that the table lists"

Located = tuple[Record, str | None]
"""A row's record, and what is wrong with its path."""


def csv_listing(root: Path, options: Options, *, any_marks: bool = False) -> Listing:
    """The listing of `root` by its tables; with `any_marks` every column without another meaning is a class."""
    found = folders.walk(root, leave_out=options.leave_out, volumes=options.volumes)
    notes: list[str] = []
    sources = read_sources(root, found, options, notes, any_marks=any_marks)
    tables = {source.table.path for source in sources}
    masks = find_masks(found.images, root)
    searched = [path for path in found.images if path not in masks or options.masks != LEAVE_OUT]
    files = Files(root, searched, [*masks, *(passed.path for passed in found.passed_over)])
    rows, classes, task = with_classes(_read_rows(files, sources, options, notes), sources, options, notes, any_marks)
    with_path = [record for record in rows if record.path not in tables]
    unlisted, passed_over = _rest(found, with_path, masks, root, options, notes)
    records = [*with_path, *(Record(key=None, path=path, labels=None) for path in unlisted)]
    if options.group_from is not None:
        records = groups_from_paths(records, root, options.group_from, notes)
    return Listing(
        classes=classes,
        task=task,
        records=[
            *mark_duplicates(records, name="path"),
            *(record for record in rows if record.path in tables),
            *found.unreadable,
        ],
        passed_over=tuple(passed for passed in passed_over if passed.path not in tables),
        notes=tuple(notes),
    )


def _read_rows(files: Files, sources: list[Source], options: Options, notes: list[str]) -> list[Located]:
    """A record for each row, with its labels as they are spelled; rows of files that are left out are counted."""
    out: list[Located] = []
    missing: Counter[str] = Counter()
    left_out = 0
    for source in sources:
        reader = RowReader(source, files, options, missing, several=len(sources) > 1)
        for row in source.table.rows:
            record, lost = reader.read(row)
            path = record.path
            inside = bool(options.leave_out) and path.is_relative_to(files.root)
            if inside and folders.is_left_out(path.relative_to(files.root).as_posix(), options.leave_out):
                left_out += 1
            else:
                out.append((record, lost))
    if missing:
        said = ", ".join(f"{text} ({count:,})" for text, count in sorted(missing.items()))
        notes.append(f"cells of the label column that are no label: {said}; --keep-na makes them classes")
    if left_out:
        notes.append(f"{counted(left_out, 'row names a file', 'rows name files')} that --leave-out leaves out")
    groups = unify(Counter(record.group for record, _ in out if record.group is not None), APART)
    if groups.notes:  # they can be names of patients
        notes.append(f"{counted(len(groups.notes), 'group is', 'groups are')} written in several ways (as 1 and 1.0)")
    return [(replace(r, group=None if r.group is None else groups.of[r.group]), lost) for r, lost in out]


def with_classes(
    rows: list[Located], sources: list[Source], options: Options, notes: list[str], any_marks: bool
) -> tuple[list[Record], tuple[str, ...], str]:
    """The records of the rows with the names of their classes, all classes, and the task."""
    by_column = any(source.columns.label for source in sources)
    good = [record.labels for record, _ in rows if record.labels is not None and not record.problem]
    counts = Counter(label for labels in good for label in labels)
    marks = next((source.columns.marks for source in sources if source.columns.marks), [])
    spellings = counts if by_column else {mark: counts[mark] for mark in marks}
    names = unify(spellings, options.similar_classes, what=f"classes of {sources[0].table.path}")
    notes += [f"classes {note}" for note in names.notes]
    records = []
    for record, lost in rows:
        labels = record.labels and tuple(dict.fromkeys(names.of.get(label, label) for label in record.labels))
        records.append(replace(record, labels=labels, problem=record.problem or lost))
    several = not by_column and any(len(labels) != 1 for labels in good)
    if several and not options.classes and not any_marks:
        notes.append(_several_classes(sources[0].table.path, good, marks))
    classes = tuple(sorted(set(names.of.values()))) if by_column else tuple(dict.fromkeys(names.of[m] for m in marks))
    return records, classes, "multi-label" if several else "multi-class"


def _several_classes(table: Path, labels: list[tuple[str, ...]], marks: list[str]) -> str:
    """A sentence that says why the task is multi-label; `labels` are those of each row, `marks` the class columns.

    Raises `ValueError` if a single column is to blame: without it each row has exactly one class, so it may be a fact
    about the patient.
    """
    for mark in marks if len(marks) > 2 and len(labels) >= ENOUGH else ():
        rest = [name for name in marks if name != mark]
        if any(mark in each for each in labels) and all(len(set(each) - {mark}) == 1 for each in labels):
            raise ValueError(
                f"{table} has no label column, and without {visible(mark)!r} each row has exactly one class: is it "
                f"one? Decide with --classes {visible(','.join(rest))} or --classes {visible(','.join(marks))}"
            )
    none, more = sum(not each for each in labels), sum(len(each) > 1 for each in labels)
    return (
        f"multi-label, since {counted(more, 'row has', 'rows have')} several classes and {counted(none, 'row')} none; "
        f"the class columns are {', '.join(visible(mark) for mark in marks)}; --classes names others"
    )


def _rest(
    found: folders.Found, rows: list[Record], masks: set[Path], root: Path, options: Options, notes: list[str]
) -> tuple[list[Path], list[PassedOver]]:
    """The images that no row names, which have no label, and what is passed over."""
    known: dict[Path, str] = {}
    places = {place(record.path, known) for record in rows}
    files = {os.path.realpath(path) for path in places if "\0" not in path}
    passed_over = [passed for passed in found.passed_over if place(passed.path, known) not in places]
    unlisted = []
    surplus = []
    for path in found.images:
        if place(path, known) in places:
            continue
        if os.path.realpath(path) in files:
            passed_over.append(PassedOver(path, OTHER_NAMES))
        elif path in masks:
            surplus.append(path)
        else:
            unlisted.append(path)
    if are_left_out(surplus, root, options, notes):
        return unlisted, passed_over + [PassedOver(path, MASKS) for path in surplus]
    return sorted([*unlisted, *surplus]), passed_over
