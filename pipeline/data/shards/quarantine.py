"""The quarantine: images that cannot be used, each with its reason, and how many of them a job accepts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.core.console import counted, visible
from pipeline.data import members
from pipeline.data.folders import UNREADABLE
from pipeline.data.members import relative_name as relative_name

LONGEST = 500  # characters of a reason: a cell of a table can be of any length
LISTED = 20  # entries that an error message lists; it counts the others

Entry = dict[str, str]
"""`file`, the name that `Names` gives, and `reason`; manifests store entries as they are."""


def entry(name: str, reason: str) -> Entry:
    """`name` as `Names` gives it."""
    return {"file": name, "reason": visible(reason[:LONGEST])}


@dataclass(frozen=True)
class Names:
    """What the files of a raw folder are called in all that is written and printed."""

    root: Path
    hidden: bool = False
    """Whether a file is called by its checksum: files and folders of DICOM are often named after patients."""

    def of(self, path: Path, checksum: str, part: tuple[int, ...] = ()) -> str:
        """The name of an image; `checksum`: of its file."""
        return f"file {checksum[:12]}{said_part(part)}" if self.hidden else self.real(path, part)

    def of_unread(self, path: Path, number: int) -> str:
        """The name of a file that pass one could not use; the user's list tells which has the number."""
        return f"unread file {number}" if self.hidden else self.real(path)

    def real(self, path: Path, part: tuple[int, ...] = ()) -> str:
        return visible(relative_name(path, self.root)) + said_part(part)


def said_part(part: tuple[int, ...]) -> str:
    """Which image of a file it is, behind the file's name; counted from 1."""
    return f", image {'/'.join(str(number + 1) for number in part)}" if part else ""


def check(entries: list[Entry], *, total: int, max_bad: float, strict: bool) -> None:
    """Raise `ValueError` if more than `max_bad` of `total` images are bad, or any with `strict`; it lists them.

    A folder or a tar that cannot be read may hold any number of images, so only a `max_bad` of 1 accepts it.
    """
    unreadable = [bad for bad in entries if bad["reason"].startswith((UNREADABLE, members.UNREADABLE))]
    if unreadable and max_bad < 1 and not strict:
        what = "folder" if all(bad["reason"].startswith(UNREADABLE) for bad in unreadable) else "folder or tar"
        raise ValueError(
            f"{counted(len(unreadable), what, 'folders' if what == 'folder' else 'folders or tars')} cannot be read, "
            "and how many images they hold is not known; make them readable, leave them out, or accept it with "
            f"--max-bad 1:\n{_lines(unreadable)}"
        )
    if not entries or (not strict and len(entries) / total <= max_bad):
        return
    rule = (
        "--strict accepts none; fix them or omit --strict"
        if strict
        else f"--max-bad accepts {max_bad:g} of them; fix them or raise --max-bad (--list FILE names all of them)"
    )
    raise ValueError(f"{len(entries)} of {total} images cannot be used and {rule}:\n{_lines(entries)}")


def check_blank(names: Sequence[str], *, total: int, strict: bool) -> None:
    """Raise `ValueError` that lists the images of one colour if there are any and `strict` is set."""
    if names and strict:
        raise ValueError(
            f"{len(names)} of {total} images are blank (one colour) and --strict accepts none; remove them or omit "
            f"--strict:\n{_lines([{'file': name, 'reason': 'is blank'} for name in names])}"
        )


def _lines(entries: list[Entry]) -> str:
    lines = "\n".join(f"  {visible(bad['file'])}: {visible(bad['reason'])}" for bad in entries[:LISTED])
    more = f"\n  and {len(entries) - LISTED} more" if len(entries) > LISTED else ""
    return lines + more
