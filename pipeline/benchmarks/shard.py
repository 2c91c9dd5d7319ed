"""Sharding: raw JPEGs of ISIC's true sizes to tars of 384×384, as whole jobs; how exact that is; its memory."""

from __future__ import annotations

import contextlib
import io
import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pipeline.benchmarks.support.base import Bench, Row, Table, Way, compare, memory, rate
from pipeline.benchmarks.support.raw_images import raw_folder
from pipeline.core.memory import keep_freed_memory
from pipeline.data import images

TITLE = "raw JPEGs to tars of 384×384"
SIZE = 384
PROCESSES = 2  # of every way; the paper's node has two cores
PSNR_IMAGES = 60
OURS, THEIRS = "pipeline.shard", "img2dataset, whole job"


def run(bench: Bench) -> list[Table]:
    """Images/s of whole jobs, dB against exact decoding and Pillow's resize, and MiB at N and 4N images."""
    count, few = (24, 8) if bench.quick else (2_000, 640)
    raw, note = raw_folder(bench, count)
    paths = _hot(raw)
    speed, start = _speed(bench, raw, paths, note), _small(bench, few)
    further = _further(speed, count, start, few)
    return [speed, start, *further, _exactness(paths, note), _memory(bench, raw, note)]


def _hot(raw: Path) -> list[Path]:
    """The images below `raw`, read once, so that every way finds them in memory."""
    paths = sorted(raw.rglob("*.jpg"))
    for path in paths:
        path.read_bytes()
    return paths


def _speed(bench: Bench, raw: Path, paths: list[Path], note: str) -> Table:
    from webdataset import TarWriter

    out = bench.scratch / "shards"
    count = len(paths)
    sample = [path.read_bytes() for path in paths[:200]]
    decoded = [_decoded(data) for data in sample]
    small = [images.resize(pixels, SIZE) for pixels in decoded]
    ways = [
        Way(name=OURS, once=lambda: whole(command(raw, out), count)),
        Way(name="pipeline.shard --decode dct", once=lambda: whole(command(raw, out, "dct"), count)),
        Way(
            name="2 processes, Pillow + webdataset.TarWriter",
            once=lambda: rate(count, lambda: _by_webdataset(TarWriter, paths, out)),
            role="peer",
        ),
    ]
    notes = [
        note,
        "ours: listing, SHA-256 of every file, plan, workers' start, quarantine, tars with checksums, index, manifest",
        "Pillow + TarWriter: two forked processes that deal the files among them; no checksums, index or quarantine",
        "limits: in memory, two forked processes, 200 images five times; the exact path is decode, resize and encode",
    ]
    if bench.peers:
        jobs = Img2dataset(bench.peers, paths, bench.scratch / "img2dataset")
        ways += [
            Way(name=THEIRS, once=jobs.whole, role="peer"),
            Way(name="img2dataset, steady state", once=lambda: jobs.steady, role="peer"),
        ]
        notes.append(
            "img2dataset: local files, 2 processes of 8 threads, center_crop at 384 (it has no squash), JPEG 95; "
            "steady state: images over the time between its first shard's start and its last one's end, by its stats"
        )
    else:
        notes.append("img2dataset is not installed (make peers)")

    def exact(data: bytes) -> bytes:
        return images.encode(images.resize(_decoded(data), SIZE), format="jpeg", quality=None)

    def limit(name: str, function: Callable[[Any], object], items: list[Any]) -> Way:
        many = items * (1 if bench.quick else 5)  # so that the start of the processes does not count
        return Way(name=name, once=lambda: rate(len(many), lambda: _on_all_cores(function, many)), role="limit")

    ways += [
        limit("exact path in memory", exact, sample),
        limit("decode alone", _decoded, sample),
        limit("resize alone", lambda pixels: images.resize(pixels, SIZE), decoded),
        limit("encode alone", lambda pixels: images.encode(pixels, format="jpeg", quality=None), small),
    ]
    return compare("sharding", "images/s", ways, bench, notes=notes)


def _small(bench: Bench, count: int) -> Table:
    """Whole jobs of fewer images, of which the start is a larger part."""
    raw, note = raw_folder(bench, count)
    paths, out = _hot(raw), bench.scratch / "shards"
    ways = [Way(name=OURS, once=lambda: whole(command(raw, out), count))]
    if bench.peers:
        ways += [
            Way(name=THEIRS, once=Img2dataset(bench.peers, paths, bench.scratch / "img2dataset").whole, role="peer")
        ]
    return compare("a smaller job", "images/s", ways, bench, notes=[note])


def _further(large: Table, many: int, small: Table, few: int) -> list[Table]:
    """What the images that one job has more than the other cost: the speed without the start.

    No table where a job of more images took no longer, as in little it may.
    """
    rows = []
    for row in small.rows:
        other = next(other for other in large.rows if other.name == row.name)
        longer = many / other.median - few / row.median
        if longer <= 0:
            return []
        rows.append(Row(name=row.name.replace(", whole job", ""), role=row.role, values=[(many - few) / longer]))
    notes = ["the images the one job has more than the other over the time it takes longer, by the medians"]
    return [Table(title="each further image", unit="images/s", rows=rows, notes=notes)]


def _decoded(data: bytes) -> np.ndarray:
    """The pixels as the command's workers decode them."""
    return images.decode(data, channels=4).pixels


def _on_all_cores(function: Callable[[Any], object], items: list[Any]) -> None:
    """Apply a function in forked processes that deal the items among them and hand nothing back."""

    def work(number: int) -> None:
        keep_freed_memory()  # as the command's workers do
        for item in items[number::PROCESSES]:
            function(item)

    _forked(work)


def _forked(work: Callable[[int], object]) -> None:
    """Call `work` with its number in each of `PROCESSES` forked processes."""
    fork = multiprocessing.get_context("fork")
    processes = [fork.Process(target=work, args=(number,)) for number in range(PROCESSES)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0


def command(raw: Path, out: Path, decode: str = "exact") -> list[str | Path]:
    """The command that shards `raw`, `out` being emptied now."""
    shutil.rmtree(out, ignore_errors=True)
    words: list[str | Path] = [sys.executable, "-m", "pipeline.shard", "bench", "--layout", "folder", "--raw", raw]
    words += ["--out", out, "--size", str(SIZE), "--workers", str(PROCESSES), "--decode", decode, "--strict"]
    return words


def whole(words: list[str | Path], count: int) -> float:
    """Images a second of a whole command, which may keep what it compiles, as users start it."""
    env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return rate(count, lambda: subprocess.run(words, check=True, capture_output=True, env=env))


def _by_webdataset(writer: Any, paths: list[Path], out: Path) -> None:
    """What a user of webdataset writes: each process takes every second file and fills a tar of its own."""
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    _forked(lambda number: _fill_tar(writer, paths[number::PROCESSES], out / f"{number:06d}.tar"))


def _fill_tar(writer: Any, paths: list[Path], tar: Path) -> None:
    with writer(str(tar)) as out:
        for path in paths:
            with Image.open(path) as image:
                small = image.convert("RGB").resize((SIZE, SIZE), Image.Resampling.BILINEAR)
            data = io.BytesIO()
            small.save(data, "JPEG", quality=95)
            out.write({"__key__": path.stem, "jpg": data.getvalue(), "json": {"labels": [path.parent.name]}})


class Img2dataset:
    """img2dataset on a list of local files, in an environment of its own."""

    def __init__(self, python: Path, paths: list[Path], folder: Path) -> None:
        self.python, self.paths, self.folder = python, paths, folder
        self.steady = 0.0
        """Images/s between the first shard's start and the last one's end, of the last `whole`."""

    def whole(self) -> float:
        """Images/s of the whole command."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        listed = self.folder / "files.txt"
        listed.write_text("".join(f"{path.as_uri()}\n" for path in self.paths))
        words: list[str | Path] = [
            self.python.parent / "img2dataset",
            f"--url_list={listed}",
            f"--output_folder={self.folder / 'out'}",
        ]
        words += ["--output_format=webdataset", f"--image_size={SIZE}", "--resize_mode=center_crop"]
        words += [f"--processes_count={PROCESSES}", "--thread_count=8", "--encode_quality=95"]
        words += [f"--number_sample_per_shard={-(-len(self.paths) // 8)}"]
        speed = whole(words, len(self.paths))
        stats = [json.loads(path.read_text()) for path in (self.folder / "out").glob("*_stats.json")]
        done = sum(shard["successes"] for shard in stats)
        assert done == len(self.paths), f"img2dataset wrote {done} of {len(self.paths)} images"
        started = min(shard["start_time"] for shard in stats)
        self.steady = done / (max(shard["end_time"] for shard in stats) - started)
        return speed


def _exactness(paths: list[Path], note: str) -> Table:
    """The resized pixels of each way, before they are encoded, against exact decoding and Pillow's bilinear resize."""
    data = [path.read_bytes() for path in paths[:PSNR_IMAGES]]
    wanted = [np.asarray(_pillow(item)) for item in data]
    ways: dict[str, tuple[str, Callable[[bytes], np.ndarray]]] = {
        OURS: ("ours", lambda item: images.resize(_decoded(item), SIZE)[..., :3]),
        "pipeline.shard --decode dct": (
            "ours",
            lambda item: images.resize(images.decode(item, least=SIZE).pixels, SIZE),
        ),
        "Pillow in draft mode": ("peer", lambda item: np.asarray(_pillow(item, draft=True))),
        "Pillow without antialiasing": ("peer", lambda item: np.asarray(_jagged(item))),
        "JPEG 95 of the wanted pixels": ("limit", lambda item: images.pixels(_stored(item))),
    }
    rows = []
    for name, (role, way) in ways.items():
        found = [_psnr(way(item), pixels) for item, pixels in zip(data, wanted, strict=True)]
        rows += [Row(name=f"{name}, mean", role=role, values=[float(np.mean(found))])]
        rows += [Row(name=f"{name}, least", role=role, values=[min(found)])]
    notes = [f"{len(data)} images of these: {note}", "peak signal-to-noise ratio; the same pixels count as 150 dB"]
    return Table(title="exactness", unit="dB", rows=rows, notes=notes)


def _pillow(data: bytes, *, draft: bool = False) -> Image.Image:
    with Image.open(io.BytesIO(data)) as image:
        if draft:
            image.draft("RGB", (SIZE, SIZE))
        return image.convert("RGB").resize((SIZE, SIZE), Image.Resampling.BILINEAR)


def _jagged(data: bytes) -> Image.Image:
    with Image.open(io.BytesIO(data)) as image:
        size = image.size
        scale = (size[0] / SIZE, 0, 0, 0, size[1] / SIZE, 0)
        return image.convert("RGB").transform((SIZE, SIZE), Image.Transform.AFFINE, scale, Image.Resampling.BILINEAR)


def _stored(data: bytes) -> bytes:
    return images.encode(np.asarray(_pillow(data)), format="jpeg", quality=None)


def _psnr(mine: np.ndarray, theirs: np.ndarray) -> float:
    error = float(((mine.astype(float) - theirs.astype(float)) ** 2).mean())
    return float(10 * np.log10(255**2 / max(error, 255**2 / 1e15)))


def _memory(bench: Bench, raw: Path, note: str) -> Table:
    """Peak memory of the command's process and its workers together, at N and 4N images."""
    rows = []
    large = sorted(raw.rglob("*.jpg"))
    for times in (1, 4):
        folder = bench.scratch / f"raw-{times}-times-{len(large)}"
        shutil.rmtree(folder, ignore_errors=True)
        for number in range(times):  # links: the same images again, as other files
            for path in large:
                link = folder / path.parent.name / f"{number}-{path.name}"
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(path)
        bench.say(f"memory at {times * len(large)} images")
        row = Row(
            name=f"{times * len(large)} images",
            role="ours",
            values=[_peak(command(folder, bench.scratch / "shards"))],
        )
        rows.append(row)
    notes = [note, "proportional set size of the parent and its workers, summed, its peak by looks every 50 ms"]
    return Table(title="memory", unit="MiB", rows=rows, more_is_better=False, notes=notes)


def _peak(words: list[str | Path]) -> float:
    """The peak of a command's memory, its children's included, in MiB."""
    peak = 0.0
    with subprocess.Popen(words, stdout=subprocess.DEVNULL) as process:
        while process.poll() is None:
            peak = max(peak, sum(memory(pid, "Pss") for pid in (process.pid, *_children(process.pid))) / 2**20)
            time.sleep(0.05)
    assert process.returncode == 0
    return peak


def _children(pid: int) -> list[int]:
    """The children of a process and theirs; none of one that is gone."""
    children: list[int] = []
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            children += map(int, path.read_text().split())
    return children + [below for child in children for below in _children(child)]
