"""Find out which column of a user's table holds what, from its names and from what the user said."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from pipeline.core.console import counted, visible
from pipeline.data.labels import MISSING, clean, listed
from pipeline.data.layouts.options import Options
from pipeline.data.records import plain_name
from pipeline.data.tables import Table

# The names of each kind of column; those of a later tuple are looked for where there is none of an earlier one.
PATHS = (("image", "path", "file", "filename", "image_path"), ("image_id", "image_name", "file_name", "filepath"))
LABELS = (("label", "class", "diagnosis", "target"), ("dx",))
GROUPS = (("group", "patient", "patient_id", "lesion", "lesion_id", "subject"),)
SPLIT = (("split",),)

# Facts about a patient or an image, of which 0 and 1 are no class.
FACTS = set("age sex gender male female height weight bmi race ethnicity smoker smoking date year id index".split())
FACTS |= set("ismale isfemale man woman pregnant hispanic caucasian adult child alive dead died deceased".split())
FACTS |= set("biopsied biopsy train training val valid validation test heldout holdout".split())
FACTS |= set("ageapprox anatomsitegeneral localization localisation remark remarks comment notes fold".split())

YES_NO = {
    "1": True,
    "1.0": True,
    "true": True,
    "yes": True,
    "0": False,
    "0.0": False,
    "false": False,
    "no": False,
}


@dataclass(frozen=True)
class Columns:
    """Which column of a table holds what; None where there is no such column."""

    path: str
    label: str | None
    group: str | None
    split: str | None
    marks: list[str]
    """The columns of 0 and 1, one a class; none where there is a label column."""


def has_paths(options: Options, header: Sequence[str]) -> bool:
    """Whether one of the names of a header is that of a path column."""
    names = {clean(name).lower() for name in header}
    known = {name for tier in PATHS for name in tier}
    return clean(options.path_column).lower() in names if options.path_column else bool(known & names)


def find_columns(
    table: Table, options: Options, *, any_marks: bool = False, marks: bool = True, needed: bool = True
) -> Columns:
    """The columns of a table; raises `ValueError` if one is missing or two could be it, with the flag that decides.

    A table without labels has neither a label column nor marks. With `any_marks` all columns that are left are marks,
    whatever they look like; without `marks` none is. Without `needed` the table may lack columns that flags name, apart
    from that of the paths.
    """
    chosen = _chosen_classes(table, options, needed)
    rest = [name for name in table.header if name not in chosen]
    path = _find(table, rest, PATHS, options.path_column, "--path-column", True)
    if path is None:
        names = listed(visible(name) for name in table.header) or "none"
        raise ValueError(
            f"{table.path} has no path column; name one of its columns {' or '.join(PATHS[0])}, or give --path-column "
            f"(its columns: {names})"
        )
    rest.remove(path)
    label = None if options.classes else _find(table, rest, LABELS, options.label_column, "--label-column", needed)
    groups = () if options.group_from is not None else GROUPS
    left = [name for name in rest if name != label]
    group = _find(table, left, groups, options.group_column, "--group-column", needed)
    left = [name for name in left if name != group]
    split = _find(table, left, SPLIT, options.split_column, "--split-column", needed)
    if label or options.classes or not marks:
        return Columns(path, label, group, split, chosen)
    left = [name for name in left if name != split and name.lower() not in (GROUPS[0] if not groups else ())]
    return Columns(path, None, group, split, left if any_marks else _only_classes(table, left))


def _find(
    table: Table, header: list[str], known: tuple[tuple[str, ...], ...], given: str | None, flag: str, needed: bool
) -> str | None:
    """The column of a kind: the one that was given, or the only one with a known name."""
    if given is not None:
        for name in header:
            if clean(name).lower() == clean(given).lower():
                return name
        if not needed:
            return None
        raise ValueError(f"{flag} is {given!r}; {table.path} has {listed(map(visible, table.header))}")
    for tier in known:
        found = [name for name in header if name.lower() in tier]
        if len(found) > 1:
            values = {name: len({row[name] for _, row in table.rows}) for name in found}
            counts = " and ".join(f"{name!r} ({counted(count, 'value')})" for name, count in values.items())
            raise ValueError(f"{table.path} has {len(found)} columns that could be meant, {counts}; decide with {flag}")
        if found:
            return found[0]
    return None


def _chosen_classes(table: Table, options: Options, needed: bool) -> list[str]:
    """The columns that --classes names, in the order of the table."""
    chosen: set[str] = set()
    for pattern in options.classes:
        names = {name for name in table.header if fnmatchcase(clean(name), clean(pattern))}
        if not names and needed:
            raise ValueError(f"--classes has {pattern!r}; {table.path} has {listed(map(visible, table.header))}")
        chosen |= names
    return [name for name in table.header if name in chosen]


def _only_classes(table: Table, marks: list[str]) -> list[str]:
    """`marks`, if each of them is a class; raises `ValueError` that names those that are none."""
    cells = {name: [cell for _, row in table.rows if not is_missing(cell := row[name])] for name in marks}
    wrong: dict[str, str] = {}
    for name in marks:
        other = [cell for cell in cells[name] if cell.lower() not in YES_NO]
        if 2 * len(other) > len(cells[name]):
            wrong[name] = f" (its cells are {listed(visible(cell) for cell in dict.fromkeys(other))})"
        elif plain_name(name) in FACTS:
            wrong[name] = ""
        elif not cells[name] and any(cells.values()):
            wrong[name] = " (it is empty)"
    if wrong:
        classes = ",".join(name for name in marks if name not in wrong) or "A,B"
        raise ValueError(
            f"{table.path} has no label column, and columns that seem to be no class: "
            f"{', '.join(visible(name) + reason for name, reason in wrong.items())}; say which columns are "
            f"classes, such as --classes {visible(classes)}, or give --label-column"
        )
    return marks


def is_missing(cell: str) -> bool:
    """Whether a cell holds nothing, or what pandas writes for nothing."""
    return not cell or cell in MISSING
