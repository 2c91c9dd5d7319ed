"""The raw files of a listing, read once: their checksums, and the images that each of them holds."""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from pipeline.core import files
from pipeline.core.console import counted
from pipeline.data import images, members
from pipeline.data.decoders import changed
from pipeline.data.formats import dicom, kinds
from pipeline.data.formats.files import Source, find_images, stamp_of
from pipeline.data.formats.reading import Found, Reading, Secret, Stamp
from pipeline.data.records import PassedOver, Record
from pipeline.data.workers import Workers

COPIES = "copies of a DICOM file"
DIFFER = "has the SOP instance uid of another file, which differs; leave one of them out: --leave-out"
AGAIN_OTHERWISE = "is there again with another label, group or split; leave one of them out: --leave-out"
Progress = Callable[..., Iterator[Any]]


@dataclass(frozen=True, kw_only=True)
class RawImage:
    """An image that is to be written, as it is in a raw file."""

    record: Record
    source: Source
    changed: str | None = None
    """The kind of its file if earlier versions decoded it otherwise."""
    found: Found | None = None
    """What its file's header says, where that was read."""


@dataclass
class RawFiles:
    """What became of the records of a listing."""

    images: list[RawImage] = field(default_factory=list)
    problems: list[Record] = field(default_factory=list)
    """Of the listing and the disk: their reasons can quote tables and names of files."""
    refused: list[Record] = field(default_factory=list)
    """What readers refuse, in words of ours."""
    passed_over: list[PassedOver] = field(default_factory=list)
    holds_dicom: bool = False
    """Whether any file is DICOM, also one that is refused; not one that only begins so."""

    def notes(self) -> list[str]:
        """What a person must know of the headers that were read: sentences without a value of theirs."""
        unsure = Counter(image.found.unsure for image in self.images if image.found and image.found.unsure)
        return [f"{counted(count, 'image')}: {text}" for text, count in sorted(unsure.items())]


class _File(NamedTuple):
    checksum: str
    changed: str | None
    kind: str | None
    stamp: Stamp


def new_secret(key: bytes | None) -> Secret:
    """The user's key, or one that is drawn now and forgotten."""
    return Secret(key or secrets.token_bytes(32), key is not None)


def read_files(
    records: Sequence[Record], reading: Reading, secret: Secret, *, workers: int, progress: Progress
) -> RawFiles:
    """Hash the files of `records` and find the images in each; a record with a problem stays one."""
    out = RawFiles(problems=[record for record in records if record.problem])
    usable = [record for record in records if not record.problem]
    good: list[tuple[Record, _File]] = []
    with Workers(workers, threads=True) as pool:
        answers = pool.map(partial(_read, reading=reading), [record.path for record in usable])
        for record, answer in zip(usable, progress(answers, total=len(usable), what="reading"), strict=True):
            if isinstance(answer, images.BadImage):
                out.problems.append(replace(record, problem=str(answer)))
            else:
                good.append((record, answer))
    tasks = [(record.path, file.kind) for record, file in good if file.kind]
    headers = _find_images(tasks, reading, secret, workers, progress) if tasks else iter(())
    for record, file in good:
        found = next(headers) if file.kind else None
        out.holds_dicom |= file.kind == kinds.DICOM and str(found) != dicom.STRAY
        if isinstance(found, images.BadImage):
            out.refused.append(replace(record, problem=str(found)))
        elif found and found.no_image:
            out.passed_over.append(PassedOver(record.path, found.no_image))
        else:
            out.images += _images_of(record, file, found)
    _sort_out_copies(out)
    return out


def _find_images(
    tasks: Sequence[tuple[Path, str | None]], reading: Reading, secret: Secret, workers: int, progress: Progress
) -> Iterator[Found | images.BadImage]:
    """What each file holds; in processes, because a damaged header can crash a library or take long."""
    with Workers(workers) as pool:
        answers = pool.map(partial(find_images, reading=reading, secret=secret), tasks)
        yield from progress(answers, total=len(tasks), what="reading headers")


def _images_of(record: Record, file: _File, found: Found | None) -> list[RawImage]:
    """The images of a file; several of them, or those of one patient, get a group if the listing gives none."""
    if found is None or found.parts == ((),) and not found.kind:
        return [RawImage(record=record, source=Source(record.path, file.checksum), changed=file.changed)]
    several = found.parts != ((),)
    group = record.group or found.group or (group_of_file(file.checksum) if several else None)
    kind = kinds.PAGES if file.kind == kinds.SLIDE and not found.kind else file.kind  # pages of what is no slide
    out = []
    for part in found.parts:
        source = Source(record.path, file.checksum, kind, part, file.stamp if several else None)
        out.append(
            RawImage(record=replace(record, part=part, group=group), source=source, changed=file.changed, found=found)
        )
    return out


def group_of_file(checksum: str) -> str:
    """The group of the images of one file, where nothing says whose they are."""
    return f"file {checksum[:20]}"


def _sort_out_copies(out: RawFiles) -> None:
    """Pass over copies of a DICOM file; two that claim to be one file and differ are problems, both of them.

    They differ in their bytes, or in the label, group or split that the listing gives them.
    """
    checksums: dict[str, dict[str, Path]] = {}
    given: dict[str, set[object]] = {}
    for image in out.images:
        if image.found and image.found.id:
            checksums.setdefault(image.found.id, {}).setdefault(image.source.checksum, image.source.path)
            record = image.record
            given.setdefault(image.found.id, set()).add((record.labels, record.group, record.split))
    kept, copies, differing = [], set(), {}
    for image in out.images:
        claims = checksums[image.found.id] if image.found and image.found.id else {}
        if len(claims) > 1:
            differing[image.source.path] = (image.record, DIFFER)
        elif image.found and image.found.id and len(given[image.found.id]) > 1:
            differing[image.source.path] = (image.record, AGAIN_OTHERWISE)
        elif claims and claims[image.source.checksum] != image.source.path:
            copies.add(image.source.path)
        else:
            kept.append(image)
    out.images = kept
    out.passed_over += [PassedOver(path, COPIES) for path in sorted(copies)]
    out.refused += [replace(record, part=(), problem=problem) for record, problem in differing.values()]


def _read(path: Path, *, reading: Reading) -> _File | images.BadImage:
    """The SHA-256 and the kind of a file, and its kind if earlier versions decoded it otherwise."""
    try:
        member = members.member_of(path)
        found = (member.tar if member else path).stat()
        if stat.S_ISDIR(found.st_mode):
            return images.BadImage("is a folder")
        if not stat.S_ISREG(found.st_mode):
            return images.BadImage("is no file: a pipe, a socket or a device")
        stamp = stamp_of(path)
        if stamp[0] == 0:
            return images.BadImage("is empty")
        with members.open_raw(path) as file:
            checksum = files.sha256_stream(file)
            file.seek(0)
            before = changed.kind_of(file)
            file.seek(0)
            return _File(checksum, before, kinds.kind_of(file, reading, in_tar=member is not None), stamp)
    except MemoryError:
        return images.BadImage("takes more memory to read than there is")
    except ValueError:
        return images.BadImage("its path holds a NUL byte")
    except OSError as error:
        if os.path.islink(path) and error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            return images.BadImage(f"is a link to a file that is not there: {os.readlink(path)}")
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            return images.BadImage("no such file")
        return images.BadImage(f"cannot be read: {error.strerror}")
