"""Sharding: whole jobs from raw JPEGs of ISIC's sizes to tars of 384×384, how exact they are, and their memory."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipeline.benchmarks.support.exactness import decode_exactly, exactness
from pipeline.benchmarks.support.measure import Case, Settings, compare, peak_memory, rate
from pipeline.benchmarks.support.raw_images import raw_folder
from pipeline.benchmarks.support.shard_jobs import (
    PROCESSES,
    SIZE,
    Img2dataset,
    images_a_second,
    in_forked_processes,
    shard_command,
    write_with_webdataset,
)
from pipeline.benchmarks.support.tables import Row, Table
from pipeline.core.memory import keep_freed_memory
from pipeline.data import images

TITLE = "raw JPEGs to tars of 384×384"
OURS, IMG2DATASET = "pipeline.shard", "img2dataset, whole job"


def run(settings: Settings) -> list[Table]:
    """Images/s of whole jobs, dB against exact decoding and Pillow's resize, and MiB at N and 4N images."""
    count, few = (12, 4) if settings.quick else (2_000, 640)
    raw, note = raw_folder(settings, count)
    paths = _read_once(raw)
    large, small = _whole_jobs(settings, raw, paths, note), _smaller_job(settings, few)
    further = _each_further_image(large, count, small, few)
    return [large, small, *further, exactness(paths, note), _memory(settings, raw, note)]


def _read_once(raw: Path) -> list[Path]:
    """The images below `raw`. Reading them puts them into the page cache, where every case finds them."""
    paths = sorted(raw.rglob("*.jpg"))
    for path in paths:
        path.read_bytes()
    return paths


def _whole_jobs(settings: Settings, raw: Path, paths: list[Path], note: str) -> Table:
    out, count = settings.scratch / "shards", len(paths)
    cases = [
        Case(name=OURS, measure=lambda: images_a_second(shard_command(raw, out), count)),
        Case(
            name="pipeline.shard --decode dct",
            measure=lambda: images_a_second(shard_command(raw, out, "dct"), count),
        ),
        Case(
            name="2 processes, Pillow + webdataset.TarWriter",
            measure=lambda: rate(count, lambda: write_with_webdataset(paths, out)),
            role="peer",
        ),
    ]
    notes = [
        note,
        "ours: listing, SHA-256 of every file, plan, workers' start, quarantine, tars with checksums, index, manifest",
        "Pillow + TarWriter: two forked processes, half of the files each; no checksums, index or quarantine",
        "limits: in memory, two forked processes, 200 images five times; the exact path is decode, resize and encode",
    ]
    if settings.peers:
        peer = Img2dataset(settings.peers, paths, settings.scratch / "img2dataset")
        cases += [
            Case(name=IMG2DATASET, measure=peer.whole_job, role="peer"),
            Case(name="img2dataset, steady state", measure=lambda: peer.steady_rate, role="peer"),
        ]
        notes.append(
            "img2dataset: local files, 2 processes of 8 threads, center_crop at 384 (it has no squash), JPEG 95; "
            "steady state: images over the time from the start of its first shard to the end of its last, by its stats"
        )
    else:
        notes.append("img2dataset is not installed (make peers)")
    return compare("sharding", "images/s", [*cases, *_limits(settings, paths)], settings, notes=notes)


def _limits(settings: Settings, paths: list[Path]) -> list[Case]:
    """The parts of the exact path in memory: what the machine allows."""
    sample = [path.read_bytes() for path in paths[:200]]
    decoded = [decode_exactly(data) for data in sample]
    small = [images.resize(pixels, SIZE) for pixels in decoded]

    def exact(data: bytes) -> bytes:
        return images.encode(images.resize(decode_exactly(data), SIZE), format="jpeg", quality=None)

    def limit(name: str, function: Callable[[Any], object], items: list[Any]) -> Case:
        many = items * (1 if settings.quick else 5)  # enough work that the start of the processes does not count
        return Case(name=name, measure=lambda: rate(len(many), lambda: _apply(function, many)), role="limit")

    return [
        limit("exact path in memory", exact, sample),
        limit("decode alone", decode_exactly, sample),
        limit("resize alone", lambda pixels: images.resize(pixels, SIZE), decoded),
        limit("encode alone", lambda pixels: images.encode(pixels, format="jpeg", quality=None), small),
    ]


def _apply(function: Callable[[Any], object], items: list[Any]) -> None:
    """Apply a function in forked processes, each to its part of the items; nothing is returned."""

    def work(number: int) -> None:
        keep_freed_memory()  # as the command's workers do
        for item in items[number::PROCESSES]:
            function(item)

    in_forked_processes(work)


def _smaller_job(settings: Settings, count: int) -> Table:
    """Whole jobs of fewer images: the start takes a larger part of the time."""
    raw, note = raw_folder(settings, count)
    paths, out = _read_once(raw), settings.scratch / "shards"
    cases = [Case(name=OURS, measure=lambda: images_a_second(shard_command(raw, out), count))]
    if settings.peers:
        peer = Img2dataset(settings.peers, paths, settings.scratch / "img2dataset")
        cases += [Case(name=IMG2DATASET, measure=peer.whole_job, role="peer")]
    return compare("a smaller job", "images/s", cases, settings, notes=[note])


def _each_further_image(large: Table, large_count: int, small: Table, small_count: int) -> list[Table]:
    """The speed without the start: the images that the large job has more, over the time that it takes longer.

    Returns no table if a larger job took no longer than the small one, as may happen with few images.
    """
    rows = []
    for row in small.rows:
        other = next(other for other in large.rows if other.name == row.name)
        longer = large_count / other.median - small_count / row.median
        if longer <= 0:
            return []
        name = row.name.replace(", whole job", "")
        rows.append(Row(name=name, role=row.role, values=[(large_count - small_count) / longer]))
    notes = ["the images that the larger job has more than the smaller, over the time it takes longer, by the medians"]
    return [Table(title="each further image", unit="images/s", rows=rows, notes=notes)]


def _memory(settings: Settings, raw: Path, note: str) -> Table:
    """Peak memory of the command and its workers together, at N and 4N images."""
    rows = []
    paths = sorted(raw.rglob("*.jpg"))
    for times in (1, 4):
        folder = settings.scratch / f"raw-{times}-times-{len(paths)}"
        shutil.rmtree(folder, ignore_errors=True)
        for number in range(times):  # links to the same images under different names
            for path in paths:
                link = folder / path.parent.name / f"{number}-{path.name}"
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(path)
        name = f"{times * len(paths)} images"
        settings.say(f"memory at {name}")
        peak = peak_memory(shard_command(folder, settings.scratch / "shards"))
        rows.append(Row(name=name, role="ours", values=[peak]))
    notes = [note, "proportional set size of the parent and its workers together; its peak, read every 50 ms"]
    return Table(title="memory", unit="MiB", rows=rows, more_is_better=False, notes=notes)
