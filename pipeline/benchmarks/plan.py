"""Planning: a grid of ten thousand runs, where each of them stands, and the index of a million images.

`python -m pipeline.benchmarks.plan CASE …` measures one case and prints its seconds and its peak memory.
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

from pipeline.benchmarks.support.base import Bench, Row, Table
from pipeline.core import files
from pipeline.data.datasets import DATASETS
from pipeline.data.shards.index import Shards, write_index
from pipeline.jobs.plan import make_plan
from pipeline.jobs.snapshot import code_version
from pipeline.runs import cluster as clusters
from pipeline.runs.folder import Result, Run
from pipeline.runs.identity import to_json
from pipeline.runs.spec import Spec
from pipeline.study import paper

TITLE = "plans, states and indexes of many"
GRID = "main"
A_SEED = 72  # runs of that grid
PAPER_DATASETS = ("autoimmune", "brain_mri", "dermofit", "isic")
LINEAR = "a tenth as many in a tenth of the time reads 0.1 in the last column; what every start costs comes on top"


def run(bench: Bench) -> list[Table]:
    """Seconds and peak memory, each case in a process of its own."""
    seeds = (2, 1) if bench.quick else (140, 14, 1)
    folders = {count: run_folders(bench, count) for count in seeds}
    planning, standing = [], []
    for count, folder in folders.items():
        flags = ["--grid", GRID, "--seeds", str(count), "--cluster", str(folder / "site.toml")]
        planning.append(
            (f"launch --dry-run of {A_SEED * count:,} runs", "ours", ["command", "launch", "--dry-run", *flags])
        )
        standing.append((f"status of {A_SEED * count:,} runs", "ours", ["command", "status", *flags]))
    most = folders[seeds[0]]
    read = (f"reading spec.json and result.json of {A_SEED * seeds[0]:,} runs", "limit", ["read", str(most / "runs")])

    counts = (10_000, 1_000) if bench.quick else (1_000_000, 100_000, 10_000)
    writing, opening = [], []
    for count in counts:
        path = bench.scratch / f"index-{count}" / "index.parquet"
        writing.append((f"writing an index of {count:,}", "ours", ["write", str(path), str(count)]))
        opening.append((f"{count:,}: the training rows and their labels", "ours", ["train", str(path)]))
        opening.append((f"{count:,}: entries and checksums of 1,000 rows", "ours", ["entries", str(path)]))
    path = bench.scratch / f"index-{counts[0]}" / "index.parquet"
    opening.append((f"{counts[0]:,}: the columns alone, by pyarrow", "limit", ["columns", str(path)]))

    held = "the states of the runs: done, interrupted, pending, failed, one after the other"
    tables = measured(bench, f"a plan of grid {GRID}", [*planning, read], [LINEAR])
    tables += measured(bench, f"where the runs of grid {GRID} stand", [*standing, read], [LINEAR, held])
    tables += measured(bench, "an index from rows that come one by one", writing, [LINEAR])
    tables += measured(bench, "an index as training uses it", opening, [LINEAR])
    return tables


def measured(bench: Bench, title: str, cases: list[tuple[str, str, list[str]]], notes: list[str]) -> list[Table]:
    """The seconds of some cases (name, role, arguments), measured in turn, and their peak memory."""
    seconds = [Row(name=name, role=role, values=[]) for name, role, _ in cases]
    memory = [Row(name=name, role=role, values=[]) for name, role, _ in cases]
    for number in range(bench.rounds):
        for (name, _, arguments), *rows in zip(cases, seconds, memory, strict=True):
            bench.say(f"round {number + 1} of {bench.rounds}: {name}")
            command = [sys.executable, "-m", "pipeline.benchmarks.plan", *arguments]
            out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            for row, value in zip(rows, json.loads(out), strict=True):
                row.values.append(value)
    return [
        Table(title=title, unit="seconds", rows=seconds, more_is_better=False, notes=notes),
        Table(title=f"{title}: peak memory", unit="MB", rows=memory, more_is_better=False),
    ]


# --- What is measured upon -------------------------------------------------------------------------------------------


def run_folders(bench: Bench, seeds: int) -> Path:
    """A folder with a cluster file, manifests of the grid's datasets and the folders of its runs in mixed states."""
    folder = bench.scratch / f"plan-{seeds}-{code_version()}"
    if not folder.exists():
        bench.say(f"making {A_SEED * seeds:,} run folders")
        for old in bench.scratch.glob(f"plan-{seeds}-*"):
            shutil.rmtree(old)
        with files.publish_folder(folder) as out:
            site = clusters.from_json({name: str(out / name) for name in clusters.PATHS})
            for name in PAPER_DATASETS:
                plugin = DATASETS.find(name).DATASET
                manifest = {
                    "name": name,
                    "fingerprint": name.ljust(16, "0"),
                    "metric": plugin.metric,
                    "label_fractions": plugin.label_fractions,
                    "settings": {"size": paper.IMAGE_SIZE},
                    "counts": {part: {"pictures": 1000, "unlabelled": 0} for part in ("train", "val", "test")},
                }
                place = out / "shards" / f"{name}-{paper.IMAGE_SIZE}-image-0" / "manifest.json"
                files.write_json(place, manifest, durable=False)
            for number, item in enumerate(make_plan(GRID, site, seeds=seeds).runs.values()):
                fill(item.run, item.spec, number % 4)
            lines = [f'{name} = "{folder / name}"\n' for name in clusters.PATHS]
            (out / "site.toml").write_text("".join(lines))
    return folder


def fill(run: Run, spec: Spec, kind: int) -> None:
    """What a run's folder holds when it is pending (0), interrupted (1), failed (2) or done (3)."""
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
    """Rows of an index of `count` images, a tenth of them without labels, one after the other."""
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


# --- A case, in its own process --------------------------------------------------------------------------------------


def command(name: str, *arguments: str) -> None:
    sys.argv = [name, *arguments]
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            runpy.run_module(f"pipeline.{name}", run_name="__main__")
    except SystemExit as end:
        if end.code not in (None, 0, 3):  # 3: the site lacks something
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


def entries(path: str) -> None:
    columns = Shards(Path(path).parent, {}).rows
    step = len(columns["tar"]) // 1000
    for row in range(0, 1000 * step, step):
        for name in ("tar", "offset", "size", "sha256"):
            columns[name][row]


def columns(path: str) -> None:
    from pyarrow import parquet

    parquet.ParquetFile(path).read(["split", "labels"])


CASES: dict[str, Callable[..., None]] = {
    case.__name__: case for case in (command, read, write, train, entries, columns)
}


if __name__ == "__main__":
    started = time.perf_counter()
    CASES[sys.argv[1]](*sys.argv[2:])
    taken = time.perf_counter() - started
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    print(json.dumps([taken, int(line.split()[1]) / 1000]))
