"""Loading: batches of 16 uint8 images, building the pixel map that they come from, and the memory of the reader."""

from __future__ import annotations

import contextlib
import io
import itertools
import multiprocessing
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pipeline.benchmarks.support import load_peers, paper_loader, raw_images
from pipeline.benchmarks.support.measure import Case, Settings, compare, memory_bytes, rate
from pipeline.benchmarks.support.tables import Table
from pipeline.core import files
from pipeline.data import images
from pipeline.data.pixel_map import Pixels, open_pixels
from pipeline.data.shards.index import Shards
from pipeline.data.shards.read import TarReader
from pipeline.learn.samples import Samples
from pipeline.runs.cluster import Cluster

TITLE = "loading for training, batches of 16, without a GPU"
BATCH = 16
NAME = "bench"

Batches = Callable[[], Iterable[Tensor]]
"""Starts an epoch and returns its batches."""


@dataclass(frozen=True)
class Data:
    """The images that every table of this benchmark reads, in three forms."""

    raw: Path
    shards: Shards
    small: Path
    """The stored images of the shards as files."""
    site: Cluster
    """Its scratch folder holds the pixel map."""
    notes: list[str]


def run(settings: Settings) -> list[Table]:
    """Images a second of loading and of building the map; MB that the reader takes."""
    size, count, seconds = (64, 2 * BATCH, 0.01) if settings.quick else (384, 1000, 3.0)
    raw, note = raw_images.raw_folder(settings, count)
    shards = raw_images.make_shards(
        settings.scratch / f"{raw.name}-at-{size}", NAME, size, "--layout", "folder", "--raw", raw
    )
    data = Data(
        raw=raw,
        shards=shards,
        small=_stored_files(settings, shards),
        site=Cluster(scratch=str(settings.scratch / "pixels"), scratch_in_ram=True),
        notes=[note, f"ours and the rows marked {size}: stored at {size}×{size}, JPEG {images.QUALITY}"],
    )
    return [_loading(settings, data, seconds), _building(settings, data), _memory(settings, data)]


def _loading(settings: Settings, data: Data, seconds: float) -> Table:
    size, shards, small = data.shards.size, data.shards, data.small

    def case(name: str, batches: Batches, role: str = "ours") -> Case:
        return Case(name=name, measure=lambda: load_peers.throughput(batches, seconds), role=role)

    cases = [
        case("ours, from the map: uint8", _epochs(open_pixels(shards, data.site), shards)),
        case("ours, from tars: uint8", _epochs(TarReader(shards), shards)),
        case("paper's: raw files", partial(paper_loader.batches, data.raw, size=size, batch=BATCH), "peer"),
        case(f"paper's: files of {size}", partial(paper_loader.batches, small, size=size, batch=BATCH), "peer"),
    ]
    notes = [
        *data.notes,
        "each epoch is timed from its first batch on: the start of workers does not count",
        "ours: uint8 on the CPU, in an epoch's order, not augmented (the device does that)",
        "paper's: Pillow, torchvision's transforms with all of the augmentation, float32, DataLoader with two workers",
    ]
    if settings.peers:
        for name, title in load_peers.LOADERS.items():
            if name == "ffcv-raw" and not _has_ffcv(settings.peers):
                notes.append("ffcv could not be built in the peers' environment and is left out")
                continue
            command = [str(settings.peers), load_peers.__file__, name, str(shards.folder), str(small), str(seconds)]
            cases.append(Case(name=title, measure=partial(_printed_number, command), role="peer"))
        notes.append(
            "webdataset + torchvision: as paper's; webdataset, uint8 and ffcv: not augmented; two workers each"
        )
    else:
        notes.append("the peers are not installed, webdataset and ffcv are left out (make peers)")
    copying = partial(_copy_rate, size, seconds)
    cases.append(Case(name="memcpy of the same bytes, all cores", measure=copying, role="limit"))
    return compare(f"batches of {BATCH}", "images/s", cases, settings, notes=notes)


def _building(settings: Settings, data: Data) -> Table:
    count = len(data.shards.rows["key"])
    stored = [path.read_bytes() for path in sorted(data.small.iterdir())]

    def build() -> float:
        shutil.rmtree(data.site.scratch)
        return rate(count, lambda: open_pixels(data.shards, data.site))

    def decode_in_one_thread() -> float:
        return rate(count, lambda: [_decode_with_pillow(image) for image in stored])

    def decode_on_all_cores() -> float:
        with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
            return rate(count, lambda: list(pool.map(images.decode_stored, stored)))

    cases = [
        Case(name="ours: read, verified, decoded, written, fsync", measure=build),
        Case(name="Pillow, one thread: decoded only", measure=decode_in_one_thread, role="peer"),
        Case(name="decoded only, all cores", measure=decode_on_all_cores, role="limit"),
    ]
    return compare("building the map", "images/s", cases, settings, notes=data.notes)


def _memory(settings: Settings, data: Data) -> Table:
    workers = 1 if settings.quick else 2  # each imports torch: the new process spawns them
    raw_files = partial(paper_loader.batches, data.raw, size=data.shards.size, batch=BATCH, workers=workers)
    from_map = partial(_epoch_from_map, data.shards, data.site)
    with _new_process() as shared:  # --quick uses one process for all: starting one takes seconds

        def measure(batches: Batches) -> float:
            with contextlib.nullcontext(shared) if settings.quick else _new_process() as process:
                return process.submit(_memory_gained, batches).result()

        cases = [
            Case(name="ours, from the map", measure=partial(measure, from_map)),
            Case(name="ours, from tars", measure=partial(measure, partial(_epoch_from_tars, data.shards))),
            Case(name="paper's: raw files", measure=partial(measure, raw_files), role="peer"),
        ]
        note = "memory that a new process and its workers have gained after 20 batches, without the page cache"
        return compare("memory of the reader", "MB", cases, settings, more_is_better=False, notes=[*data.notes, note])


def _stored_files(settings: Settings, shards: Shards) -> Path:
    """The stored images of the shards as files in a folder."""
    folder = settings.scratch / f"{shards.folder.parent.name}-files"
    if not folder.exists():
        rows = shards.rows
        with files.publish_folder(folder) as out:
            for key, tar, offset, size in zip(*(rows[c] for c in ("key", "tar", "offset", "size")), strict=True):
                with open(shards.folder / tar, "rb") as file:
                    (out / f"{key}.jpg").write_bytes(os.pread(file.fileno(), size, offset))
    return folder


def _epoch_from_map(shards: Shards, site: Cluster) -> Iterable[Tensor]:
    return _epochs(open_pixels(shards, site), shards)()


def _epoch_from_tars(shards: Shards) -> Iterable[Tensor]:
    return _epochs(TarReader(shards), shards)()


def _epochs(pixels: Pixels, shards: Shards) -> Batches:
    """Epochs of one reader, one after another, as in a run."""
    rows = np.arange(len(shards.rows["key"]))
    samples = Samples(pixels, rows, torch.device("cpu"))
    numbers = itertools.count()

    def epoch() -> Iterator[Tensor]:
        number = next(numbers)
        return samples.blocks([samples.batch(0, number, step, BATCH) for step in range(len(rows) // BATCH)])

    return epoch


def _copy_rate(size: int, seconds: float) -> float:
    """Images a second that all cores copy from 512 MB of memory into the memory of one batch."""
    cores = len(os.sched_getaffinity(0))
    many = (512 << 20) // (size * size * 3)
    source = torch.zeros(many, size, size, 3, dtype=torch.uint8)

    def copy(core: int) -> int:
        out = torch.zeros(BATCH, size, size, 3, dtype=torch.uint8)
        rng, done = np.random.default_rng(core), 0
        until = time.perf_counter() + seconds
        while not done or time.perf_counter() < until:
            np.take(source.numpy(), rng.integers(0, many, BATCH), axis=0, out=out.numpy(), mode="clip")
            done += BATCH
        return done

    with ThreadPoolExecutor(cores) as pool:
        return sum(pool.map(copy, range(cores))) / seconds


def _decode_with_pillow(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB"))


def _has_ffcv(python: Path) -> bool:
    return subprocess.run([python, "-c", "import ffcv"], capture_output=True).returncode == 0


def _printed_number(command: list[str]) -> float:
    """The number that a peer's process prints last."""
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise ValueError(f"{' '.join(command)} failed: {done.stderr.strip().splitlines()[-1:]}")
    return float(done.stdout.split()[-1])


def _new_process() -> ProcessPoolExecutor:
    """A pool of one process, which starts with the first task."""
    return ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))


def _memory_gained(batches: Batches) -> float:
    before = _memory_used()
    epoch = iter(batches())
    for _ in islice(epoch, 20):
        pass
    return max(_memory_used() - before, 0.001)


def _memory_used() -> float:
    """MB of this process and its workers, without the page cache; memory that they share is counted once."""
    pids = [os.getpid(), *(child.pid or 0 for child in multiprocessing.active_children())]
    return sum(memory_bytes(pid, "Pss_Anon", "Pss_Shmem") for pid in pids) / 1e6
