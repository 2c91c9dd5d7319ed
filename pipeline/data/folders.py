"""Walk a raw folder: each thing in it is an image, is passed over with its kind, or is a folder that cannot be read.

Links to folders are followed, each folder once. No file is opened here.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

from pipeline.core.console import visible
from pipeline.data.records import PassedOver, Record

# Endings of files that are no images. Every other file counts as an image until decoding it fails.
NOT_IMAGES = set(".csv .tsv .txt .md .json .jsonl .xml .html .pdf .doc .docx .xls .xlsx .yaml .yml .toml .ini".split())
NOT_IMAGES |= set(".log .db .py .ipynb .m .mat .zip .tar .gz .sha256 .md5".split())
VOLUME = ".nii.gz"
# Files and folders that operating systems, file managers and storage boxes leave behind.
SYSTEM_FILES = (".DS_Store", "._", "Thumbs.db", "desktop.ini", "Icon\r")
SYSTEM_FOLDERS = {"@eadir", "__macosx", "#recycle", "$recycle.bin", "system volume information", "lost+found"}

HIDDEN = "hidden"
SYSTEM = "left by a system"
LEFT_OUT = "left out by --leave-out"
LISTED = "links to folders that are listed already"
LOOPS = "links to a folder that contains them"
SPECIAL = "pipes, sockets and devices"
OUTSIDE = "outside the dataset's folders"

UNREADABLE = "a folder that cannot be read"
"""How the problem of such a folder begins."""


@dataclass
class Found:
    """All that is below a folder."""

    images: list[Path] = field(default_factory=list)
    """Every file that may be an image, links that lead nowhere too, sorted by the parts of their paths."""
    passed_over: list[PassedOver] = field(default_factory=list)
    unreadable: list[Record] = field(default_factory=list)
    """A record with a problem for each folder that cannot be read: how many images it holds is not known."""


def walk(root: Path, *, hidden: bool = False, leave_out: Sequence[str] = (), volumes: bool = False) -> Found:
    """All that is below `root`; hidden files and folders count as others with `hidden`.

    With `volumes`, compressed NIfTI (`.nii.gz`) may be images. `leave_out` are patterns (`*.bmp`, `extra`) for paths
    relative to `root`. Raises `ValueError` if `root` itself cannot be read.
    """
    walker = _Walker(root, hidden, leave_out, volumes)
    walker.walk()
    found = walker.found
    if any(record.path == root for record in found.unreadable):
        raise ValueError(f"{root} cannot be read: {str(found.unreadable[0].problem).removeprefix(UNREADABLE + ': ')}")
    found.images.sort()
    found.passed_over.sort()
    return found


def outside(folder: Path, known: Iterable[str]) -> list[PassedOver]:
    """What is directly in `folder` under other names than the `known` ones; a folder counts as one."""
    return [PassedOver(path, OUTSIDE) for path in sorted(folder.iterdir()) if path.name not in set(known)]


def images_under(root: Path, *, volumes: bool = False) -> list[Path]:
    """Every file below `root` that may be an image; raises `ValueError` for a folder that cannot be read."""
    found = walk(root, volumes=volumes)
    for record in found.unreadable:
        raise ValueError(f"{visible(str(record.path))} is {record.problem}; make it readable, or give other folders")
    return found.images


def is_left_out(name: str, patterns: Sequence[str]) -> bool:
    """Whether a path relative to the raw folder, or a folder that it is in, matches one of the patterns."""
    parts = name.split("/")
    above = ["/".join(parts[: number + 1]) for number in range(len(parts))]
    return any(fnmatchcase(path, pattern.rstrip("/")) for pattern in patterns for path in above)


def ending(path: Path) -> str:
    """A file's ending in lower case; of a compressed file both: `.nii.gz`."""
    suffixes = [suffix.lower() for suffix in path.suffixes[-2:]]
    return "".join(suffixes if suffixes[-1:] == [".gz"] else suffixes[-1:])


class _Walker:
    def __init__(self, root: Path, hidden: bool, leave_out: Sequence[str], volumes: bool) -> None:
        self.root = root
        self.hidden = hidden
        self.leave_out = leave_out
        self.volumes = volumes
        self.found = Found()
        self.links: list[Path] = []
        """Links to folders that are still to be followed."""
        self.walked: set[str] = set()
        """The real paths of the folders that are listed."""

    def walk(self) -> None:
        """List the root's own folders first, then each folder that a link leads to unless it is listed already."""
        self._walk_tree(self.root)
        while self.links:
            self.links.sort()
            link = self.links.pop(0)
            real = os.path.realpath(link)
            if _contains(real, os.path.realpath(link.parent)):
                self._pass(link, LOOPS)
            elif real in self.walked:
                self._pass(link, LISTED)
            else:
                self._walk_tree(link)

    def _walk_tree(self, top: Path) -> None:
        folders = [top]
        while folders:
            folder = folders.pop()
            real = os.path.realpath(folder)
            if real in self.walked:
                self._pass(folder, LISTED)
                continue
            self.walked.add(real)
            try:
                with os.scandir(folder) as entries:
                    names = [(entry.name, _kind(entry)) for entry in entries]
            except OSError as error:
                problem = f"{UNREADABLE}: {error.strerror}"
                self.found.unreadable.append(Record(key=None, path=folder, labels=None, problem=problem))
                continue
            folders += [path for name, kind in names if (path := self._sort(folder / name, kind))]

    def _sort(self, path: Path, kind: str) -> Path | None:
        """Put a thing where it belongs; returns a folder that is to be listed now."""
        name = path.name
        if self.leave_out and is_left_out(path.relative_to(self.root).as_posix(), self.leave_out):
            self._pass(path, LEFT_OUT)
        elif name.startswith(SYSTEM_FILES) or ("folder" in kind and name.lower() in SYSTEM_FOLDERS):
            self._pass(path, SYSTEM)
        elif name.startswith(".") and not self.hidden:
            self._pass(path, HIDDEN)
        elif kind == "folder":
            return path
        elif kind == "link to a folder":
            self.links.append(path)
        elif path.suffix.lower() in NOT_IMAGES and not (self.volumes and ending(path) == VOLUME):
            self._pass(path, ending(path))
        elif kind == "special":
            self._pass(path, SPECIAL)
        else:
            self.found.images.append(path)
        return None

    def _pass(self, path: Path, kind: str) -> None:
        self.found.passed_over.append(PassedOver(path, kind))


def _kind(entry: os.DirEntry[str]) -> str:
    """`file` (also a link that leads nowhere: reading it says so), `folder`, `link to a folder` or `special`."""
    try:
        if entry.is_dir(follow_symlinks=False):
            return "folder"
        if entry.is_file(follow_symlinks=False):
            return "file"
        mode = entry.stat().st_mode
    except OSError:
        return "file"
    return "link to a folder" if stat.S_ISDIR(mode) else "file" if stat.S_ISREG(mode) else "special"


def _contains(folder: str, path: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")
