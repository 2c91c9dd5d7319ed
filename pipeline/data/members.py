"""Images that are members of tars: a path says of which tar, and where in it the bytes are.

`DIR/00000.tar/@512+8192/000000123.jpg` are the 8,192 bytes from byte 512 on of `DIR/00000.tar`. So a worker opens one
tar and reads one image, whatever the order.
"""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import BinaryIO, NamedTuple

ENDING = ".tar"
UNREADABLE = "a tar that cannot be read to its end"
"""How the problem of such a tar begins."""
SPAN = re.compile(r"@(\d+)\+(\d+)")


class Member(NamedTuple):
    """Where a member is."""

    tar: Path
    offset: int
    size: int
    name: str
    """Its name in the tar."""


def member_path(tar: Path, offset: int, size: int, name: str) -> Path:
    """The path of a member; its name may begin with / or hold anything."""
    return tar / f"@{offset}+{size}" / ("/".join(part for part in name.split("/") if part) or "_")


def member_of(path: Path) -> Member | None:
    """The member that a path names; None for the path of a file."""
    parts = path.parts
    for number in range(len(parts) - 2):
        if parts[number].endswith(ENDING) and (span := SPAN.fullmatch(parts[number + 1])):
            name = "/".join(parts[number + 2 :])
            return Member(Path(*parts[: number + 1]), int(span[1]), int(span[2]), name)
    return None


def shown(path: Path) -> Path:
    """A path as a person is to read it: the tar and the member's name."""
    found = member_of(path)
    return found.tar / found.name if found else path


def open_raw(path: Path) -> BinaryIO:
    """An image's file, or a member's bytes as one; raises `OSError` as `open` does."""
    return open(path, "rb") if member_of(path) is None else io.BytesIO(read_raw(path))


def read_raw(path: Path) -> bytes:
    """The bytes of an image's file or of a member; those of a tar that ends in it are fewer than the path says."""
    found = member_of(path)
    if found is None:
        return path.read_bytes()
    with open(found.tar, "rb") as file:
        file.seek(found.offset)
        return file.read(found.size)
