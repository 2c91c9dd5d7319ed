"""Which file system holds a path, and what an error of a disk means."""

from __future__ import annotations

import contextlib
import errno
import re
import shutil
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


NEXT = {
    errno.ENOSPC: "the disk is full ({room}); free some space",
    errno.EDQUOT: "your quota on the disk is used up; free some space or ask for more",
    errno.EFBIG: "the file is larger than the disk or a limit (ulimit -f) allows; raise it, or give another folder",
    errno.EROFS: "the disk is read-only; give a folder that can be written",
    errno.EACCES: "you may not read or write it; change its permissions, or give another path",
    errno.EPERM: "you may not change it; change its owner, or give another path",
    errno.ENOENT: "it is not there (any more); check the path and that its disk is mounted",
    errno.ENOTDIR: "a part of the path is a file, not a folder; check the path",
    errno.EISDIR: "it is a folder, not a file; check the path",
    errno.EEXIST: "it is there already, and not what is expected; move it away",
    errno.ENOTEMPTY: "the folder is not empty; move it away",
    errno.ENAMETOOLONG: "the name is too long for the disk; give a shorter one",
    errno.ELOOP: "its symbolic links lead in a circle; remove them",
    errno.EIO: "the disk cannot be read or written; check its health and its cables or server",
    errno.ESTALE: "the server of the disk has lost it; mount it again",
    errno.ENODEV: "its disk has gone; mount it again",
    errno.ENXIO: "its disk has gone; mount it again",
    errno.ENOTCONN: "its disk has gone; mount it again",
    errno.ETIMEDOUT: "the server of the disk does not answer; try again later",
    errno.EMFILE: "too many files are open; raise the limit (ulimit -n), or use fewer workers",
    errno.ENFILE: "too many files are open on this machine; use fewer workers",
    errno.ENOMEM: "there is too little memory; use fewer workers or a machine with more",
    errno.EAGAIN: "the machine gives no more processes (ulimit -u) or locks; use fewer workers",
    errno.ENOLCK: "the disk keeps no file locks; mount it with them, or give another folder",
}
"""What an error of the system means for a person, and the next move."""


def error_text(error: OSError) -> str:
    """One line for an error of the system: which path, what is wrong, what to do next."""
    path = error.filename2 or error.filename
    if isinstance(path, bytes):
        path = path.decode(errors="surrogateescape")
    words = NEXT.get(error.errno or 0)
    if words is None:
        return f"{path or 'the system'}: {error.strerror or error}; fix that and run the same command again"
    place = str(path) if isinstance(path, str) else "a file, or where this command's output goes"
    return f"{place}: {words.format(room=_room(path))}, then run the same command again; it continues"


def _room(path: object) -> str:
    """How much of the disk of a path is free, in words; the path need not exist."""
    if not isinstance(path, str):
        return "no space left"
    for folder in [Path(path), *Path(path).absolute().parents]:
        with contextlib.suppress(OSError):
            usage = shutil.disk_usage(folder)
            return f"{usage.free / 1e6:,.1f} of {usage.total / 1e6:,.1f} MB are free now"
    return "no space left"
