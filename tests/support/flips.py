"""Flip single bits of files, and put them back."""

from __future__ import annotations

import contextlib
import os
import random
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def flipped(path: Path, chance: random.Random) -> Iterator[str]:
    """One bit of the file is another in this block; yields which, for messages. The file may be deleted meanwhile."""
    before, stat = path.read_bytes(), path.stat()
    bit = chance.randrange(8 * len(before))
    flip(path, bit)
    yield f"bit {bit} of {path.name}"
    path.write_bytes(before)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))


def flip(path: Path, bit: int) -> None:
    with open(path, "r+b") as file:
        file.seek(bit // 8)
        (byte,) = file.read(1)
        file.seek(bit // 8)
        file.write(bytes([byte ^ 1 << bit % 8]))
