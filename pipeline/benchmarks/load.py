"""Loading: batches of 16 uint8 images, the making of the map they come from, and the memory this takes."""

from __future__ import annotations

import io
import itertools
import multiprocessing
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pipeline.benchmarks.support import load_peers, paper_loader, raw_images
from pipeline.benchmarks.support.base import Bench, Table, Way, compare, memory, rate
from pipeline.core import files
from pipeline.data import images
from pipeline.data.pixel_map import Pixels, open_pixels
from pipeline.data.shards.index import Shards
from pipeline.data.shards.read import Tars
from pipeline.learn.samples import Samples
from pipeline.runs.cluster import Cluster

TITLE = "loading for training, batches of 16, without a GPU"
BATCH = 16
NAME = "bench"

Batches = Callable[[], Iterable[Tensor]]
"""Starts an epoch."""


def run(bench: Bench) -> list[Table]:
    """Images a second that arrive, images a second that the map is built with, MB that the reader takes."""
    size, count, seconds = (64, 64, 0.2) if bench.quick else (384, 1000, 3.0)
    raw, note = raw_images.raw_folder(bench, count)
    shards = raw_images.sharded(bench.scratch / f"{raw.name}-at-{size}", NAME, size, "--layout", "folder", "--raw", raw)
    site = Cluster(scratch=str(bench.scratch / "pixels"), scratch_in_ram=True)
    small = _small_files(bench, shards)
    about = [note, f"ours and what is marked {size}: stored at {size}×{size}, JPEG {images.QUALITY}"]
    return [
        _batches(bench, shards, site, raw, small, seconds, about),
        _building(bench, shards, site, about),
        _memory(bench, shards, site, raw, about),
    ]


def _batches(
    bench: Bench, shards: Shards, site: Cluster, raw: Path, small: Path, seconds: float, about: list[str]
) -> Table:
    size = shards.size

    def way(name: str, batches: Batches, role: str = "ours") -> Way:
        return Way(name=name, once=lambda: load_peers.throughput(batches, seconds), role=role)

    ways = [
        way("ours, from the map: uint8", _epochs(open_pixels(shards, site), shards)),
        way("ours, from tars: uint8", _epochs(Tars(shards), shards)),
        way("paper's: raw files", partial(paper_loader.batches, raw, size=size, batch=BATCH), "peer"),
        way(f"paper's: files of {size}", partial(paper_loader.batches, small, size=size, batch=BATCH), "peer"),
    ]
    notes = [
        *about,
        "from each epoch's first batch on: the start of workers does not count",
        "ours: uint8 on the CPU, in an epoch's order, not augmented (that is the device's work)",
        "paper's: Pillow, torchvision's transforms with all of the augmentation, float32, DataLoader with two workers",
    ]
    if bench.peers:
        for name, what in load_peers.WAYS.items():
            if name == "ffcv-raw" and not _has_ffcv(bench.peers):
                notes.append("ffcv could not be built in the peers' environment: left out")
                continue
            command = [str(bench.peers), load_peers.__file__, name, str(shards.folder), str(small), str(seconds)]
            ways.append(Way(name=what, once=partial(_asked, command), role="peer"))
        notes.append(
            "webdataset + torchvision: as paper's; webdataset, uint8 and ffcv: not augmented; two workers each"
        )
    else:
        notes.append("no peers' environment: webdataset and ffcv are left out (make peers)")
    ways.append(Way(name="memcpy of the same bytes, all cores", once=partial(_copied, size, seconds), role="limit"))
    return compare(f"batches of {BATCH}", "images/s", ways, bench, notes=notes)


def _building(bench: Bench, shards: Shards, site: Cluster, about: list[str]) -> Table:
    count = len(shards.rows["key"])
    stored = [path.read_bytes() for path in sorted(_small_files(bench, shards).iterdir())]

    def built() -> float:
        shutil.rmtree(site.scratch)
        return rate(count, lambda: open_pixels(shards, site))

    def one_thread() -> float:
        return rate(count, lambda: [_by_pillow(data) for data in stored])

    def all_cores() -> float:
        with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
            return rate(count, lambda: list(pool.map(images.pixels, stored)))

    ways = [
        Way(name="ours: read, verified, decoded, written, fsync", once=built),
        Way(name="Pillow, one thread: decoded only", once=one_thread, role="peer"),
        Way(name="decoded only, all cores", once=all_cores, role="limit"),
    ]
    return compare("building the map", "images/s", ways, bench, notes=about)


def _memory(bench: Bench, shards: Shards, site: Cluster, raw: Path, about: list[str]) -> Table:
    ways = [
        Way(name="ours, from the map", once=partial(_grown, partial(_from_map, shards, site))),
        Way(name="ours, from tars", once=partial(_grown, partial(_from_tars, shards))),
        Way(
            name="paper's: raw files",
            once=partial(_grown, partial(paper_loader.batches, raw, size=shards.size, batch=BATCH)),
            role="peer",
        ),
    ]
    note = "memory of its own (no page cache) of a new process and its workers after 20 batches, less that before them"
    return compare("memory of the reader", "MB", ways, bench, more_is_better=False, notes=[*about, note])


def _small_files(bench: Bench, shards: Shards) -> Path:
    """The stored images as files."""
    folder = bench.scratch / f"{shards.folder.parent.name}-files"
    if not folder.exists():
        rows = shards.rows
        with files.publish_folder(folder) as out:
            for key, tar, offset, size in zip(*(rows[c] for c in ("key", "tar", "offset", "size")), strict=True):
                with open(shards.folder / tar, "rb") as file:
                    (out / f"{key}.jpg").write_bytes(os.pread(file.fileno(), size, offset))
    return folder


def _from_map(shards: Shards, site: Cluster) -> Iterable[Tensor]:
    return _epochs(open_pixels(shards, site), shards)()


def _from_tars(shards: Shards) -> Iterable[Tensor]:
    return _epochs(Tars(shards), shards)()


def _epochs(pixels: Pixels, shards: Shards) -> Batches:
    """One epoch after another of the same reader, as a run has them."""
    rows = np.arange(len(shards.rows["key"]))
    samples = Samples(pixels, rows, torch.device("cpu"))
    numbers = itertools.count()

    def epoch() -> Iterator[Tensor]:
        number = next(numbers)
        return samples.blocks([samples.batch(0, number, step, BATCH) for step in range(len(rows) // BATCH)])

    return epoch


def _copied(size: int, seconds: float) -> float:
    """Images a second that all cores copy from 512 MB of memory to one batch's."""
    cores = len(os.sched_getaffinity(0))
    many = (512 << 20) // (size * size * 3)
    source = torch.zeros(many, size, size, 3, dtype=torch.uint8)
    until = time.perf_counter() + seconds

    def copy(core: int) -> int:
        out = torch.zeros(BATCH, size, size, 3, dtype=torch.uint8)
        rng, done = np.random.default_rng(core), 0
        while time.perf_counter() < until:
            np.take(source.numpy(), rng.integers(0, many, BATCH), axis=0, out=out.numpy(), mode="clip")
            done += BATCH
        return done

    with ThreadPoolExecutor(cores) as pool:
        return sum(pool.map(copy, range(cores))) / seconds


def _by_pillow(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB"))


def _has_ffcv(python: Path) -> bool:
    return subprocess.run([python, "-c", "import ffcv"], capture_output=True).returncode == 0


def _asked(command: list[str]) -> float:
    """What a peer's process prints."""
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise ValueError(f"{' '.join(command)} failed: {done.stderr.strip().splitlines()[-1:]}")
    return float(done.stdout.split()[-1])


def _grown(batches: Batches) -> float:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_held_by, batches).result()


def _held_by(batches: Batches) -> float:
    before = _held()
    epoch = iter(batches())
    for _ in islice(epoch, 20):
        pass
    return max(_held() - before, 0.001)


def _held() -> float:
    """MB that this process and its workers hold for themselves: what is shared between them is counted once."""
    pids = [os.getpid(), *(child.pid or 0 for child in multiprocessing.active_children())]
    return sum(memory(pid, "Pss_Anon", "Pss_Shmem") for pid in pids) / 1e6
