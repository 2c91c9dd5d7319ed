"""Fan-outs: k fine-tunes at the same time on one device, compared with one after another."""

from __future__ import annotations

import subprocess
import time
from functools import partial

from pipeline.benchmarks.support.measure import Case, Settings, compare
from pipeline.benchmarks.support.raw_images import make_shards
from pipeline.benchmarks.support.tables import Table
from pipeline.benchmarks.support.trials import ENGINES, WORKLOADS, command, is_installed, make_runs
from pipeline.core import files
from pipeline.jobs.gpus import gpus
from pipeline.runs.cluster import Cluster
from pipeline.runs.folder import Run

TITLE = "k fine-tunes at the same time on one device"


def run(settings: Settings) -> list[Table]:
    """Trained images a second of whole fan-outs, on the CPU, and on a GPU if there is one."""
    if settings.quick:
        return [fan_outs(settings, "cpu", [("processes", 2, 1), ("processes", 1, 1)])]
    shapes = [("processes", 2, 1), ("processes", 1, 2), ("processes", 1, 1), ("ray_tune", 2, 1)]
    tables = [fan_outs(settings, "cpu", shapes)]
    if gpus(Cluster()):
        tables.append(fan_outs(settings, "cuda", [("processes", k, 1) for k in (2, 1, 4)]))
    return tables


def fan_outs(settings: Settings, device: str, shapes: list[tuple[str, int, int]]) -> Table:
    """Compare fan-outs on a device; a shape is the engine, the number of trials at once, and the threads of each."""
    workload = WORKLOADS["quick" if settings.quick else device]
    shards = make_shards(settings.scratch / "toys", "toy", workload.pixels)
    weights: dict[int, set[tuple[str, ...]]] = {}
    runs: list[Run] = []

    def measure(engine: str, trials: int, threads: int) -> float:
        count = 2 if settings.quick else 4
        runs[:] = make_runs(settings, shards, workload, device=device, threads=threads, count=count)
        started = time.perf_counter()
        done = subprocess.run(command(engine, trials, runs), capture_output=True, text=True)
        taken = time.perf_counter() - started
        if any(run.state() != "done" for run in runs):
            raise RuntimeError(f"a fan-out did not finish: {[run.reason() for run in runs]} {done.stderr}")
        weights.setdefault(threads, set()).add(tuple(files.sha256_file(run["weights"]) for run in runs))
        return float(sum(run.result().notes["train_pictures"] for run in runs)) / taken

    cases = [
        Case(
            name=f"{trials} at once, {threads} thread{'s' * (threads > 1)} each, {ENGINES[engine]}",
            measure=partial(measure, engine, trials, threads),
        )
        for engine, trials, threads in shapes
        if is_installed(engine)
    ]
    table = compare(f"fine-tunes on {device}", "images a second", cases, settings)
    table.notes = [
        f"{len(runs)} of {workload.backbone.title}, {workload.pixels} pixels, {workload.epochs} epochs of drawn images",
        "whole jobs: the time includes the start of the processes, the import of torch, validation and the final test",
    ]
    assert all(len(found) == 1 for found in weights.values()), "the weights of a run depend on the runs next to it"
    table.notes.append("runs with the same number of threads have the same weights, byte for byte")
    return table
