"""Ask the reader of a file's kind for the images that it holds, and for the pixels of one of them.

The header is read in pass one, in a worker process: a damaged one may crash a library or take long. The pixels are
read in pass two; a file that holds several images is not hashed again for each of them, its size and its time of
change are compared instead.
"""

from __future__ import annotations

import io
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO, NamedTuple

from pipeline.core import files
from pipeline.data import images, members
from pipeline.data.formats import dicom, dicom_pixels, kinds, levels, nifti, pages, slides
from pipeline.data.formats.reading import PERCENTILES, Found, Part, Reading, Secret, Stamp
from pipeline.data.images import BadImage, Decoded

CHANGED = "changed while the dataset was sharded; shard it again"


class Source(NamedTuple):
    """An image of a raw file, as pass two gets it."""

    path: Path
    checksum: str
    """SHA-256 of the file."""
    kind: str | None = None
    """Its reader, of `kinds`; None: `data/images`."""
    part: Part = ()
    stamp: Stamp | None = None
    """Of a file that holds several images."""
    ends: tuple[float, float] | None = None
    """The values of black and white, where percentiles of a DICOM series are the window."""


def stamp_of(path: Path) -> Stamp:
    """Of a file, or of a member: its size, and when its tar changed."""
    member = members.member_of(path)
    found = (member.tar if member else path).stat()
    return member.size if member else found.st_size, found.st_mtime_ns


@images.or_reason
def find_images(task: tuple[Path, str], *, reading: Reading, secret: Secret) -> Found:
    """The images in a file of one of `kinds`, or why it cannot be used. The task is its path and its kind."""
    path, kind = task
    if kind == kinds.DICOM:
        with members.open_raw(path) as file:
            found = dicom.find_images(file, reading, secret)
            if found.kind in levels.RELATIVE or (reading.window or "").startswith(PERCENTILES):
                found = replace(found, values=dicom_pixels.sample_values(file, found.parts, reading))
            return found
    if kind == kinds.NIFTI:
        return nifti.find_images(path, reading)
    if kind == kinds.SLIDE:
        found_tiles = slides.find_images(path, reading)
        if found_tiles or reading.frames is None:
            return found_tiles or Found()
    return pages.find_images(path if members.member_of(path) is None else members.read_raw(path), reading)


@images.or_reason
def draw_tiles(task: tuple[Path, list[Part]], *, reading: Reading) -> bytes:
    """A PNG of a slide with its tiles; the task is its path and the tiles."""
    return slides.draw_tiles(*task, reading)


def decode(
    source: Source,
    reading: Reading,
    *,
    channels: int,
    min_side: int = 0,
    size: int | None = None,
    memory: int | None = None,
    bits: int | None = None,
    check: bool = True,
) -> Decoded:
    """The pixels of an image, as `data/images` gives them; raises `BadImage`, also if the file has changed.

    Without `check` its checksum is not compared.
    """
    if source.kind == kinds.DICOM:
        with _opened(source, check) as file:
            kept = None
            if source.stamp:
                _compare(source.path, source.stamp)
                kept = (source.path, source.stamp)
            return dicom_pixels.decode(
                file, source.part, reading, channels=channels, memory=memory, ends=source.ends, kept=kept
            )
    if source.kind in (kinds.NIFTI, kinds.SLIDE) and source.stamp:
        _compare(source.path, source.stamp)
        if source.kind == kinds.SLIDE:
            return slides.decode(source.path, source.stamp, source.part, reading, channels=channels)
        return nifti.decode(source.path, source.stamp, source.part, reading, channels=channels, memory=memory)
    raw = _kept(source.path, source.stamp) if source.stamp else _whole(source, check)
    frame = source.part[0] if source.part else None
    return images.decode(raw, min_side=min_side, channels=channels, size=size, memory=memory, bits=bits, frame=frame)


def _opened(source: Source, check: bool) -> BinaryIO:
    """A file of several images itself, of which one is read; all bytes of others and of members of tars."""
    if source.stamp is None:
        return io.BytesIO(_whole(source, check))
    if members.member_of(source.path):
        return io.BytesIO(_kept(source.path, source.stamp))
    return open(source.path, "rb")


def _whole(source: Source, check: bool) -> bytes:
    raw = members.read_raw(source.path)
    if check and files.sha256_bytes(raw) != source.checksum:
        raise BadImage(CHANGED)
    return raw


@lru_cache(maxsize=1)
def _kept(path: Path, stamp: Stamp) -> bytes:
    """The bytes of a file that holds several images, which are asked for one after another."""
    raw = members.read_raw(path)
    _compare(path, stamp)
    return raw


def _compare(path: Path, stamp: Stamp) -> None:
    if stamp_of(path) != stamp:
        raise BadImage(CHANGED)
