"""A hospital's own files: DICOM, volumes, slides and tars to our tars, next to plain loops and to decoding alone."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from pipeline.benchmarks.support import hospital_files, plain_readers
from pipeline.benchmarks.support.measure import Case, Settings, compare, peak_memory, processor_seconds
from pipeline.benchmarks.support.plain_readers import Reader
from pipeline.benchmarks.support.raw_images import raw_folder
from pipeline.benchmarks.support.shard_jobs import PROCESSES
from pipeline.benchmarks.support.tables import Row, Table

TITLE = "a hospital's own files to tars of 224×224"
SIZE = 224
OURS, PLAIN, ALONE = "pipeline.shard", "a plain loop", "decoding alone"
FRAMES = 100_000  # of a file, the most that are taken


class Kind(NamedTuple):
    """A kind of file that is measured."""

    name: str
    needs: tuple[str, ...]
    fill: Callable[[Path], object]
    flags: str
    plain: Reader
    alone: Reader
    images: int
    note: str


def run(settings: Settings) -> list[Table]:
    """Images/s of whole jobs by kind of file; seconds and MiB of planning a million frames from their headers.

    Of processor time: whole jobs are compared with loops, and other work on the machine does not count.
    """
    out = []
    for kind in _kinds(settings):
        if lacking := [name for name in kind.needs if find_spec(name) is None]:
            settings.say(f"{kind.name} is left out: {', '.join(lacking)} is not installed")
        else:
            out.append(_table(settings, kind))
    return [*out, *(_many_frames(settings) if find_spec("pydicom") else [])]


def _kinds(settings: Settings) -> list[Kind]:
    quick = settings.quick
    count, side = (8, 64) if quick else (300, 512)
    width, height = (90, 60) if quick else (600, 450)
    volumes, across, slices, long = (2, 32, 4, 768) if quick else (6, 256, 64, 3072)
    raw, note = raw_folder(settings, count)
    paths, many, plain = sorted(raw.rglob("*.jpg")), hospital_files, plain_readers
    scans = Kind(
        name="DICOM, 16 bits, raw",
        needs=("pydicom",),
        fill=lambda out: many.ct_slices(out, count, side),
        flags="--layout dicom",
        plain=plain.dicom,
        alone=plain.dicom_alone,
        images=count,
        note=f"{count} CT slices of {side}×{side}; pydicom, Pillow, TarWriter",
    )
    photographs = scans._replace(
        name="DICOM, JPEG",
        fill=lambda out: many.photographs(out, count, width, height),
        note=f"{count} photographs of {width}×{height}, baseline JPEG 95; the same loop",
    )
    return [
        scans,
        photographs,
        Kind(
            name="NIfTI, compressed",
            needs=("nibabel",),
            fill=lambda out: many.volumes(out, volumes, across, slices),
            flags="--layout dicom --slices all",
            plain=plain.nifti,
            alone=plain.nifti_alone,
            images=volumes * slices,
            note=f"{volumes} volumes of {across}×{across}×{slices}; nibabel, percentiles, Pillow, TarWriter",
        ),
        Kind(
            name="slide tiles",
            needs=("openslide", "tifffile"),
            fill=lambda out: many.slide(out, long),
            flags="--layout dicom --tiles level=0",
            plain=plain.tiles,
            alone=plain.tiles,
            images=(long // plain.TILE) ** 2,
            note=f"a slide of {long}×{long} in deflated tiles of 256; openslide, Pillow, TarWriter; no background",
        ),
        Kind(
            name="webdataset",
            needs=("webdataset",),
            fill=lambda out: many.tars(out, paths, 100 if not quick else 4),
            flags="--layout webdataset --label-member json:label",
            plain=plain.webdataset_images,
            alone=plain.jpegs_alone,
            images=count,
            note=f"{note}, in tars as img2dataset's; webdataset with Pillow, TarWriter",
        ),
    ]


def _table(settings: Settings, kind: Kind) -> Table:
    raw = hospital_files.folder_of(settings, kind.name.replace(", ", "-").replace(" ", "-").lower(), kind.fill)
    paths, out = sorted(path for path in raw.iterdir()), settings.scratch / "formats-out"
    for path in paths:  # into the page cache
        path.read_bytes()
    plain, alone, count = kind.plain, kind.alone, kind.images
    cases = [
        Case(name=OURS, measure=lambda: _a_second(count, lambda: _run(_command(raw, out, kind.flags)))),
        Case(
            name=PLAIN,
            measure=lambda: _a_second(count, lambda: plain_readers.write_tars(paths, plain, out, SIZE)),
            role="peer",
        ),
        Case(
            name=ALONE,
            measure=lambda: _a_second(count, lambda: plain_readers.read_alone(paths, alone)),
            role="limit",
        ),
    ]
    notes = [kind.note, "the loop and decoding alone: two forked processes, each with every second file"]
    return compare(kind.name, "images/s of processor time", cases, settings, notes=notes)


def _a_second(count: int, work: Callable[[], object]) -> float:
    return count / processor_seconds(work)


def _run(command: list[str | Path]) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    subprocess.run(command, check=True, capture_output=True, env=environment)


def _command(raw: Path, out: Path, flags: str) -> list[str | Path]:
    shutil.rmtree(out, ignore_errors=True)
    words: list[str | Path] = [sys.executable, "-m", "pipeline.shard", "bench", "--raw", raw, "--out", out]
    return [*words, *flags.split(), "--size", str(SIZE), "--split", "image", "--workers", str(PROCESSES)]


def _many_frames(settings: Settings) -> list[Table]:
    """What pass one takes of files that hold very many frames; no pixel is decoded."""
    count, frames = (2, 100) if settings.quick else (10, FRAMES)
    raw = hospital_files.folder_of(settings, "frames", lambda out: hospital_files.long_loops(out, count, frames))
    command = [*_command(raw, settings.scratch / "formats-out", "--layout dicom"), "--dry-run"]
    taken, peaks = [], []
    for number in range(settings.rounds):
        settings.say(f"round {number + 1} of {settings.rounds}: {count * frames:,} frames")
        taken.append(processor_seconds(lambda: _run(command)))
        peaks.append(peak_memory(command))
    name, note = f"{count * frames:,} frames", f"{count} DICOM files; --dry-run --split image, which decodes nothing"
    return [
        Table(
            title=f"planning, {what}",
            unit=unit,
            rows=[Row(name=name, role="ours", values=values)],
            more_is_better=False,
            notes=[note],
        )
        for what, unit, values in (("time", "seconds of processor time", taken), ("memory", "MiB", peaks))
    ]
