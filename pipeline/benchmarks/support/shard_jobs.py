"""Whole sharding jobs: the project's command and its peers, all with the same number of processes."""

from __future__ import annotations

import io
import json
import multiprocessing
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image

from pipeline.benchmarks.support.measure import rate

SIZE = 384
PROCESSES = 2  # of every job; the paper's node has two cores


def shard_command(raw: Path, out: Path, decode: str = "exact") -> list[str | Path]:
    """The project's command that shards the folder `raw`; empties `out` first."""
    shutil.rmtree(out, ignore_errors=True)
    words: list[str | Path] = [sys.executable, "-m", "pipeline.shard", "bench", "--layout", "folder", "--raw", raw]
    words += ["--out", out, "--size", str(SIZE), "--workers", str(PROCESSES), "--decode", decode, "--strict"]
    return words


def images_a_second(command: list[str | Path], count: int) -> float:
    """Run a whole command that shards `count` images; it may write bytecode, as when a user starts it."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return rate(count, lambda: subprocess.run(command, check=True, capture_output=True, env=environment))


def in_forked_processes(work: Callable[[int], object]) -> None:
    """Call `work` with its number in each of `PROCESSES` forked processes."""
    fork = multiprocessing.get_context("fork")
    processes = [fork.Process(target=work, args=(number,)) for number in range(PROCESSES)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0


def write_with_webdataset(paths: list[Path], out: Path) -> None:
    """Shard with Pillow and webdataset: each process takes every second file and writes one tar."""
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    in_forked_processes(lambda number: _write_tar(paths[number::PROCESSES], out / f"{number:06d}.tar"))


def _write_tar(paths: list[Path], tar: Path) -> None:
    from webdataset import TarWriter

    with TarWriter(str(tar)) as out:
        for path in paths:
            with Image.open(path) as image:
                small = image.convert("RGB").resize((SIZE, SIZE), Image.Resampling.BILINEAR)
            data = io.BytesIO()
            small.save(data, "JPEG", quality=95)
            out.write({"__key__": path.stem, "jpg": data.getvalue(), "json": {"labels": [path.parent.name]}})


class Img2dataset:
    """img2dataset on a list of local files; `python` is the interpreter of the environment that has it."""

    def __init__(self, python: Path, paths: list[Path], folder: Path) -> None:
        self.python, self.paths, self.folder = python, paths, folder
        self.steady_rate = 0.0
        """Images a second between the start of the first shard and the end of the last, in the last `whole_job`."""

    def whole_job(self) -> float:
        """Images a second of the whole command."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        listed = self.folder / "files.txt"
        listed.write_text("".join(f"{path.as_uri()}\n" for path in self.paths))
        command: list[str | Path] = [self.python.parent / "img2dataset", f"--url_list={listed}"]
        command += [f"--output_folder={self.folder / 'out'}", "--output_format=webdataset"]
        command += [f"--image_size={SIZE}", "--resize_mode=center_crop", "--encode_quality=95"]
        command += [f"--processes_count={PROCESSES}", "--thread_count=8"]
        command += [f"--number_sample_per_shard={-(-len(self.paths) // 8)}"]
        speed = images_a_second(command, len(self.paths))
        stats: list[dict[str, Any]] = [
            json.loads(path.read_text()) for path in (self.folder / "out").glob("*_stats.json")
        ]
        done = sum(shard["successes"] for shard in stats)
        assert done == len(self.paths), f"img2dataset wrote {done} of {len(self.paths)} images"
        started = min(shard["start_time"] for shard in stats)
        self.steady_rate = done / (max(shard["end_time"] for shard in stats) - started)
        return speed
