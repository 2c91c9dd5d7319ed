"""Images that are members of tars: a path says of which tar, and where in it the bytes are.

`DIR/00000.tar/@512+8192/000000123.jpg` are the 8,192 bytes from byte 512 on of `DIR/00000.tar`. So a worker opens one
tar and reads one image, whatever the order.
"""

from __future__ import annotations

import errno
import io
import os
import re
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast

ENDING = ".tar"
UNREADABLE = "a tar that cannot be read to its end"
"""How the problem of such a tar begins."""
SPAN = re.compile(r"@(\d+)\+(\d+)")
LARGEST = 4 << 30  # bytes of a member that is read: a sparse tar of a few bytes can claim any number


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
    """The member that a path names, whatever its tar is called; None for the path of a file."""
    parts = path.parts
    for number in range(len(parts) - 2):
        if (span := SPAN.fullmatch(parts[number + 1])) and os.path.isfile(tar := Path(*parts[: number + 1])):
            return Member(tar, int(span[1]), int(span[2]), "/".join(parts[number + 2 :]))
    return None


def shown(path: Path) -> Path:
    """A path as a person is to read it: the tar and the member's name."""
    found = member_of(path)
    return found.tar / found.name if found else path


def relative_name(path: Path, root: Path) -> str:
    """The path as a person is to read it, relative to the raw folder `root`; the whole path if it is outside."""
    path = shown(path)
    return str(path.relative_to(root)) if path.is_relative_to(root) else str(path)


def open_raw(path: Path) -> BinaryIO:
    """An image's file, or a member as one; raises `OSError` as `open` does, and for a member above LARGEST."""
    found = member_of(path)
    if found is None:
        return open(path, "rb")
    if found.size > LARGEST:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), str(path))
    return cast(BinaryIO, io.BufferedReader(_Part(found)))


def read_raw(path: Path) -> bytes:
    """The bytes of an image's file or of a member; those of a tar that ends in it are fewer than the path says.

    Raises as `open_raw`.
    """
    with open_raw(path) as file:
        return file.read()


class _Part(io.RawIOBase):
    """The bytes of a member as a file of their own."""

    def __init__(self, member: Member) -> None:
        self.file = open(member.tar, "rb", buffering=0)  # noqa: SIM115  closed with this
        self.name = self.file.name  # readers ask for it
        self.start, self.size = member.offset, member.size
        self.place = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        place = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self.place, io.SEEK_END: self.size}[whence]
        if place < 0:
            raise ValueError(f"no place in a file: {place}")
        self.place = place
        return place

    def readinto(self, buffer: Any, /) -> int:
        wanted = min(len(memoryview(buffer)), max(0, self.size - self.place))
        data = os.pread(self.file.fileno(), wanted, self.start + self.place)
        memoryview(buffer)[: len(data)] = data
        self.place += len(data)
        return len(data)

    def close(self) -> None:
        if not self.closed:
            self.file.close()
        super().close()
