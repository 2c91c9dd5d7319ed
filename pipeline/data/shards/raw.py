"""The raw files of a listing, read once for their checksums."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from pipeline.core import files
from pipeline.data import images, members
from pipeline.data.decoders import changed
from pipeline.data.records import Dataset, Listing, Record
from pipeline.data.shards import quarantine
from pipeline.data.shards.quarantine import Entry
from pipeline.data.workers import Workers

Progress = Callable[..., Iterator[Any]]


class Readable(NamedTuple):
    """A listing whose files were read."""

    listing: Listing
    checksums: list[tuple[Record, str]]
    """The SHA-256 of each record's file."""
    others: dict[Path, str]
    """The files that earlier versions decoded otherwise, with their kinds."""
    quarantined: list[Entry]


def read_files(dataset: Dataset, root: Path, *, workers: int, progress: Progress) -> Readable:
    """List the files under `root` and read each for its checksum; raises `ValueError` if they cannot be listed."""
    listing = dataset.listing(root)
    readable: list[tuple[Record, str]] = []
    others: dict[Path, str] = {}
    quarantined = [quarantine.entry(record.path, root, record.problem) for record in listing.records if record.problem]
    records = [record for record in listing.records if not record.problem]
    with Workers(workers, threads=True) as pool:
        answers = pool.map(_read, [record.path for record in records])
        for record, answer in zip(records, progress(answers, total=len(records), what="reading"), strict=True):
            if isinstance(answer, images.BadImage):
                quarantined.append(quarantine.entry(record.path, root, str(answer)))
            else:
                checksum, kind = answer
                readable.append((record, checksum))
                if kind is not None:
                    others[record.path] = kind
    return Readable(listing, readable, others, quarantined)


def _read(path: Path) -> tuple[str, str | None] | images.BadImage:
    """The SHA-256 of a file, and its kind if earlier versions decoded it otherwise."""
    try:
        member = members.member_of(path)
        found = (member.tar if member else path).stat()
        if stat.S_ISDIR(found.st_mode):
            return images.BadImage("is a folder")
        if not stat.S_ISREG(found.st_mode):
            return images.BadImage("is no file: a pipe, a socket or a device")
        if (member.size if member else found.st_size) == 0:
            return images.BadImage("is empty")
        with members.open_raw(path) as file:
            checksum = files.sha256_stream(file)
            file.seek(0)
            return checksum, changed.kind_of(file)
    except ValueError:
        return images.BadImage("its path holds a NUL byte")
    except OSError as error:
        if os.path.islink(path) and error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            return images.BadImage(f"is a link to a file that is not there: {os.readlink(path)}")
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            return images.BadImage("no such file")
        return images.BadImage(f"cannot be read: {error.strerror}")
