"""Which patient or lesion an image shows, taken from the path of its file."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from pipeline.core.console import counted, visible
from pipeline.data.labels import storable
from pipeline.data.members import relative_name
from pipeline.data.records import Record


def groups_from_paths(
    records: list[Record], root: Path, pattern: str, notes: list[str], *, hides_names: bool = False
) -> list[Record]:
    """Records with the group that a regular expression finds in their paths relative to `root`.

    The group is what the expression's first group matched, or all that it matched where it has none. Raises
    `ValueError` if it finds one in no path; with `hides_names` it quotes none.
    """
    expression = re.compile(pattern)
    out = []
    for record in records:
        out.append(replace(record, group=group_in(relative_name(record.path, root), expression)))
    without = sum(record.group is None for record in out)
    if records and without == len(out):
        first = f"; the first path is {visible(relative_name(records[0].path, root))!r}"
        raise ValueError(f"--group-from {pattern!r} finds a group in no path{'' if hides_names else first}")
    if without:
        notes.append(f"--group-from finds a group in {len(out) - without:,} of {counted(len(out), 'path')}")
    return out


def group_in(path: str, expression: re.Pattern[str]) -> str | None:
    """What the expression's first group matches in a path, or all that it matches where it has none."""
    match = expression.search(path)
    found = match[1 if expression.groups else 0] if match else None
    return storable(found) if found else None
