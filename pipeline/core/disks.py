"""Which file system holds a path."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path
from typing import NamedTuple

MOUNTS = Path("/proc/self/mounts")


class Mount(NamedTuple):
    """A mounted file system; both fields are empty where the system does not tell."""

    point: str
    kind: str
    """`ext4`, `nfs4`, `tmpfs`, …"""


def mount_of(path: Path) -> Mount:
    """The mount that holds `path`, which need not exist; symbolic links are followed."""
    path = path.resolve()
    best = Mount("", "")
    with contextlib.suppress(OSError):
        for line in MOUNTS.read_text(errors="replace").splitlines():
            _, point, kind, *_ = line.split()
            point = re.sub(r"\\(\d{3})", lambda match: chr(int(match[1], 8)), point)  # `\040` is a space
            if path.is_relative_to(point) and len(point) >= len(best.point):  # of two at one point the later counts
                best = Mount(point, kind)
    return best
