"""A fan-out: k fine-tunes at once on one device, against one after another.

`python -m pipeline.benchmarks.fanout ENGINE K RUN…` carries run folders to their end, K at a time.
"""

from __future__ import annotations

import dataclasses
import importlib
import shutil
import subprocess
import sys
import time
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from pipeline.benchmarks.support.base import Bench, Table, Way, compare
from pipeline.benchmarks.support.raw_images import sharded
from pipeline.core import files
from pipeline.data.shards.index import Shards
from pipeline.jobs.execute import site_of
from pipeline.jobs.life import gpus
from pipeline.runs import cluster as clusters
from pipeline.runs.cluster import Cluster
from pipeline.runs.folder import Run
from pipeline.runs.spec import DatasetRef, run_id
from pipeline.study import paper

TITLE = "k fine-tunes at once on one device"


@dataclasses.dataclass(frozen=True)
class Size:
    """What is fine-tuned."""

    backbone: paper.Backbone
    pixels: int
    epochs: int
    label_fraction: float = 1.0


SIZES = {
    "cpu": Size(paper.Backbone("resnet10t.c3_in1k", "ResNet-10-T", paper.CNN), 64, 2),
    "cuda": Size(paper.RESNET50, paper.IMAGE_SIZE, 20),
    "quick": Size(paper.Backbone("test_resnet.r160_in1k", "tiny ResNet", paper.CNN), 32, 1, 0.1),
}
ENGINES = {"workers": "plain workers", "tune": "Ray Tune"}


def run(bench: Bench) -> list[Table]:
    """Trained images a second of whole fan-outs, on the CPU and on a GPU where there is one."""
    if bench.quick:
        return [table(bench, "cpu", [("workers", 2, 1), ("workers", 1, 1)])]
    tables = [table(bench, "cpu", [("workers", 2, 1), ("workers", 1, 2), ("workers", 1, 1), ("tune", 2, 1)])]
    if gpus(Cluster()):
        tables.append(table(bench, "cuda", [("workers", k, 1) for k in (2, 1, 4)]))
    return tables


def table(bench: Bench, device: str, shapes: list[tuple[str, int, int]]) -> Table:
    """Fan-outs on a device by engine, trials at once, and threads of each."""
    size = SIZES["quick" if bench.quick else device]
    shards = sharded(bench.scratch / "toys", "toy", size.pixels)
    weights: dict[int, set[tuple[str, ...]]] = {}
    runs: list[Run] = []

    def once(engine: str, trials: int, threads: int) -> float:
        runs[:] = announced(bench, shards, size, device=device, threads=threads, count=2 if bench.quick else 4)
        command = [sys.executable, "-m", "pipeline.benchmarks.fanout", engine, str(trials)]
        started = time.perf_counter()
        done = subprocess.run([*command, *(str(run.folder) for run in runs)], capture_output=True, text=True)
        taken = time.perf_counter() - started
        if any(run.state() != "done" for run in runs):
            raise RuntimeError(f"a fan-out did not end: {[run.reason() for run in runs]} {done.stderr}")
        weights.setdefault(threads, set()).add(tuple(files.sha256_file(run["weights"]) for run in runs))
        return float(sum(run.result().notes["train_pictures"] for run in runs)) / taken

    ways = [
        Way(
            name=f"{trials} at once, {threads} thread{'s' * (threads > 1)} each, {ENGINES[engine]}",
            once=partial(once, engine, trials, threads),
        )
        for engine, trials, threads in shapes
        if engine == "workers" or find_spec("ray")
    ]
    made = compare(f"fine-tunes on {device}", "images a second", ways, bench)
    made.notes = [
        f"{len(runs)} of {size.backbone.title} at {size.pixels} pixels, {size.epochs} epochs of drawn images",
        "whole jobs: the start of the processes, the import of torch, validation and the last test are in it",
    ]
    assert all(len(found) == 1 for found in weights.values()), "the bits of a run depend on its neighbours"
    made.notes.append("with equal threads all have the same weights, byte for byte")
    return made


def announced(bench: Bench, shards: Shards, size: Size, *, device: str, threads: int, count: int) -> list[Run]:
    """Folders of runs that differ in their seeds, nothing done yet; the decoded images stay between calls."""
    paths = {name: str(bench.scratch / "fanout" / name) for name in clusters.PATHS}
    paths["shards"] = str(shards.folder.parent)
    site = clusters.from_json({**paths, "device": device, "threads": threads})
    shutil.rmtree(site.runs, ignore_errors=True)
    runs = []
    for seed in range(count):
        spec = paper.finetune(
            DatasetRef(name=shards.name, fingerprint=shards.fingerprint),
            size.backbone,
            pretrain=None,
            label_fraction=size.label_fraction,
            preset=paper.preset("paper"),
            seed=seed,
            weights="random",
            epochs=size.epochs,
            image_size=size.pixels,
        )
        runs.append(Run(Path(site.runs) / run_id(spec)))
        runs[-1].announce(spec)
        files.write_json(runs[-1]["job"], clusters.to_json(site))
    return runs


if __name__ == "__main__":
    engine = importlib.import_module(f"pipeline.jobs.{sys.argv[1]}")
    count = len(gpus(site_of(Run(Path(sys.argv[3])))))
    engine.run_trials(sys.argv[3:], trials=int(sys.argv[2]), gpus=count, stop=lambda: False)
