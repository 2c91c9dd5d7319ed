"""Planning: the plan of ten thousand runs, their states, the index of a million images, and twins among many.

`python -m pipeline.benchmarks.plan TASK …` runs one task and prints its seconds and its peak memory in MB.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import runpy
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.benchmarks.support import thumbnails
from pipeline.benchmarks.support.measure import Settings
from pipeline.benchmarks.support.tables import Row, Table
from pipeline.core import files
from pipeline.data.datasets import DATASETS
from pipeline.data.shards.index import Shards, write_index
from pipeline.data.twins import ALIKE, find_twins
from pipeline.jobs.plan import make_plan
from pipeline.jobs.snapshot import code_version
from pipeline.runs import cluster as clusters
from pipeline.runs.folder import Run
from pipeline.runs.identity import to_json
from pipeline.runs.result import Result
from pipeline.runs.spec import Spec
from pipeline.study import paper

TITLE = "plans and states of many runs, indexes and twins of many images"
GRID = "main"
RUNS_PER_SEED = 72  # of GRID
PAPER_DATASETS = ("autoimmune", "brain_mri", "dermofit", "isic")
LINEAR = "a tenth of the runs or rows in a tenth of the time shows 0.1 in the last column; a process's start adds to it"

Measured = tuple[str, str, list[str]]
"""The name of a row, its role, and the task with its arguments."""


def run(settings: Settings) -> list[Table]:
    """Seconds and peak memory; each task runs in a process of its own."""
    return [*plans_and_states(settings), *indexes(settings), *twins_of_images(settings)]


def plans_and_states(settings: Settings) -> list[Table]:
    """Planning a grid, and reading the states of its runs, at several numbers of runs."""
    seeds = (2, 1) if settings.quick else (140, 14, 1)
    folders = {count: run_folders(settings, count) for count in seeds}
    plans: list[Measured] = []
    states: list[Measured] = []
    for count, folder in folders.items():
        runs = f"{RUNS_PER_SEED * count:,} runs"
        flags = ["--grid", GRID, "--seeds", str(count), "--cluster", str(folder / "site.toml")]
        plans.append((f"launch --dry-run of {runs}", "ours", ["command", "launch", "--dry-run", *flags]))
        states.append((f"status of {runs}", "ours", ["command", "status", *flags]))
    largest = folders[seeds[0]] / "runs"
    name = f"reading spec.json and result.json of {RUNS_PER_SEED * seeds[0]:,} runs"
    read: Measured = (name, "limit", ["read", str(largest)])
    mixed = "the runs are done, failed, interrupted and pending, a quarter each"
    tables = measure(settings, f"the plan of grid {GRID}", [*plans, read], [LINEAR])
    return tables + measure(settings, f"the states of the runs of grid {GRID}", [*states, read], [LINEAR, mixed])


def indexes(settings: Settings) -> list[Table]:
    """Writing an index and reading from it, at several numbers of images."""
    counts = (10_000, 1_000) if settings.quick else (1_000_000, 100_000, 10_000)
    writing: list[Measured] = []
    reading: list[Measured] = []
    for count in counts:
        path = settings.scratch / f"index-{count}" / "index.parquet"
        writing.append((f"writing an index of {count:,}", "ours", ["write", str(path), str(count)]))
        reading.append((f"{count:,}: the training rows and their labels", "ours", ["train", str(path)]))
        reading.append((f"{count:,}: positions and checksums of 1,000 rows", "ours", ["positions", str(path)]))
    path = settings.scratch / f"index-{counts[0]}" / "index.parquet"
    reading.append((f"{counts[0]:,}: the columns alone, by pyarrow", "limit", ["columns", str(path)]))
    tables = measure(settings, "writing an index, row by row", writing, [LINEAR])
    return tables + measure(settings, "reading an index as training does", reading, [LINEAR])


def twins_of_images(settings: Settings) -> list[Table]:
    """Finding twins among thumbnails, a third of which have some. (A million: run the tasks `draw` and `twins`.)"""
    finding: list[Measured] = []
    for count in (4_000, 400) if settings.quick else (100_000, 10_000):
        path = settings.scratch / f"thumbnails-{count}.npy"
        if not path.exists():
            thumbnails.write(path, count)
        finding.append((f"finding twins among {count:,}", "ours", ["twins", str(path)]))
    return measure(settings, "finding twins", finding, [LINEAR])


def measure(settings: Settings, title: str, cases: list[Measured], notes: list[str]) -> list[Table]:
    """Measure the seconds and the peak memory of the cases, in turn."""
    seconds = [Row(name=name, role=role, values=[]) for name, role, _ in cases]
    memory = [Row(name=name, role=role, values=[]) for name, role, _ in cases]
    for number in range(settings.rounds):
        for (name, _, arguments), *rows in zip(cases, seconds, memory, strict=True):
            settings.say(f"round {number + 1} of {settings.rounds}: {name}")
            command = [sys.executable, "-m", "pipeline.benchmarks.plan", *arguments]
            out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            for row, value in zip(rows, json.loads(out), strict=True):
                row.values.append(value)
    return [
        Table(title=title, unit="seconds", rows=seconds, more_is_better=False, notes=notes),
        Table(title=f"{title}: peak memory", unit="MB", rows=memory, more_is_better=False),
    ]


# --- Folders and rows to measure with --------------------------------------------------------------------------------


def run_folders(settings: Settings, seeds: int) -> Path:
    """A folder with a cluster file, manifests of the grid's datasets, and folders of its runs in mixed states."""
    folder = settings.scratch / f"plan-{seeds}-{code_version()}"
    if not folder.exists():
        settings.say(f"making {RUNS_PER_SEED * seeds:,} run folders")
        for old in settings.scratch.glob(f"plan-{seeds}-*"):
            shutil.rmtree(old)
        with files.publish_folder(folder) as out:
            site = clusters.from_json({name: str(out / name) for name in clusters.PATHS})
            for name in PAPER_DATASETS:
                plugin = DATASETS.find(name).DATASET
                manifest = {
                    "name": name,
                    "fingerprint": name.ljust(16, "0"),
                    "classes": list(plugin.classes),
                    "metric": plugin.metric,
                    "label_fractions": plugin.label_fractions,
                    "settings": {"size": paper.IMAGE_SIZE},
                    "counts": {part: {"pictures": 1000, "unlabelled": 0} for part in ("train", "val", "test")},
                }
                path = out / "shards" / f"{name}-{paper.IMAGE_SIZE}-image-0" / "manifest.json"
                files.write_json(path, manifest, durable=False)
            for number, planned in enumerate(make_plan(GRID, site, seeds=seeds).runs.values()):
                fill(planned.run, planned.spec, number % 4)
            lines = [f'{name} = "{folder / name}"\n' for name in clusters.PATHS]
            (out / "site.toml").write_text("".join(lines))
    return folder


def fill(run: Run, spec: Spec, kind: int) -> None:
    """Write the files of a run that is pending (0), interrupted (1), failed (2) or done (3)."""
    run.folder.mkdir(parents=True)
    run["spec"].write_text(json.dumps(to_json(spec)))
    run["job"].write_text("{}")
    start: dict[str, Any] = {"hardware": {"device": "cpu", "model": "a processor"}, "inputs": {}}
    start["starts"] = [{"code": "0" * 12, "versions": {}}]
    if kind:
        run["lock"].touch()
        run["start"].write_text(json.dumps(start))
    if kind == 2:
        run["error"].write_text("Traceback\nValueError: a loss that is not finite\n")
    if kind == 3:
        result = Result(
            metrics={"f1_micro": 0.5},
            seconds=100.0,
            images_per_second=20.0,
            epochs=spec.epochs,
            best_epoch=None,
            device="a processor",
            precision="float32",
            threads=1,
            code="0" * 12,
            versions={},
            notes=start,
        )
        run["result"].write_text(json.dumps(dataclasses.asdict(result)))


def rows_of(count: int) -> Iterator[dict[str, Any]]:
    """Yield the rows of an index of `count` images, a tenth of them without labels."""
    for number in range(count):
        split = "train" if number < 0.8 * count else "val" if number < 0.9 * count else "test"
        yield {
            "key": f"image-{number:08d}",
            "split": split,
            "labels": [f"class {number % 8}"] if number % 10 else None,
            "group": f"group-{number // 3}",
            "tar": f"{split}-{number // 5000:06d}.tar",
            "offset": 512 + 40_000 * (number % 5000),
            "size": 30_000 + number % 1000,
            "sha256": files.sha256_bytes(b"%d" % number),
            "width": 600,
            "height": 450,
        }


# --- The tasks, each in its own process ------------------------------------------------------------------------------


def command(name: str, *arguments: str) -> None:
    sys.argv = [name, *arguments]
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            runpy.run_module(f"pipeline.{name}", run_name="__main__")
    except SystemExit as end:
        if end.code not in (None, 0, 3):  # 3: preflight found problems
            raise


def read(runs: str) -> None:
    for folder in Path(runs).iterdir():
        for name in ("spec", "result"):
            if (path := Run(folder)[name]).exists():
                json.loads(path.read_bytes())


def write(path: str, count: str) -> None:
    write_index(Path(path), rows_of(int(count)))


def train(path: str) -> None:
    shards = Shards(Path(path).parent, {})
    shards.labels(shards.of_split("train"))


def positions(path: str) -> None:
    columns = Shards(Path(path).parent, {}).rows
    step = len(columns["tar"]) // 1000
    for row in range(0, 1000 * step, step):
        for name in ("tar", "offset", "size", "sha256"):
            columns[name][row]


def columns(path: str) -> None:
    from pyarrow import parquet

    parquet.ParquetFile(path).read(["split", "labels"])


def draw(path: str, count: str) -> None:
    thumbnails.write(Path(path), int(count))


def twins(path: str) -> None:
    find_twins(np.load(path, mmap_mode="r"), ALIKE)


TASKS: dict[str, Callable[..., None]] = {
    task.__name__: task for task in (command, read, write, train, positions, columns, draw, twins)
}


if __name__ == "__main__":
    started = time.perf_counter()
    TASKS[sys.argv[1]](*sys.argv[2:])
    taken = time.perf_counter() - started
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    print(json.dumps([taken, int(line.split()[1]) / 1000]))
