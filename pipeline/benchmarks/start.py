"""Starting: what a person waits for before anything happens, and what a job spends before its first step."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from functools import partial
from importlib.util import find_spec

from pipeline.benchmarks.fanout import ENGINES, SIZES, announced
from pipeline.benchmarks.support.base import Bench, Row, Table, Way, compare, seconds
from pipeline.benchmarks.support.raw_images import sharded

TITLE = "commands, runs and trials, from the start of a process"
TRIALS = 40


def run(bench: Bench) -> list[Table]:
    """Seconds of whole processes, to a run's first step, and to a fan-out's trials."""
    return [commands(bench), first_step(bench), *trials(bench)]


def commands(bench: Bench) -> Table:
    """The commands that must answer at once, and what they therefore do not import."""
    asked = [["launch", "--help"], ["launch", "--grid", "main", "--dry-run"], ["status", "--grid", "main"]]
    imports = ["torch", "timm"] + (["ray.tune"] if find_spec("ray") and not bench.quick else [])
    ways = [
        Way(name=" ".join(command), once=partial(_process, bench, "-m", f"pipeline.{command[0]}", *command[1:]))
        for command in asked
    ]
    ways += [
        Way(name=f"import {name}", once=partial(_process, bench, "-c", f"import {name}"), role="limit")
        for name in imports
    ]
    ways += [Way(name="python alone", once=partial(_process, bench, "-c", "pass"), role="limit")]
    return compare("commands as whole processes", "seconds", ways, bench, more_is_better=False)


def _process(bench: Bench, *arguments: str) -> float:
    return seconds(lambda: subprocess.run([sys.executable, *arguments], capture_output=True, cwd=bench.scratch))


def first_step(bench: Bench) -> Table:
    """A run's process until its first step is done."""
    size = SIZES["quick"]
    shards = sharded(bench.scratch / "toys", "toy", size.pixels)

    def once() -> float:
        run = announced(bench, shards, size, device="cpu", threads=1, count=1)[0]
        started = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, "-m", "pipeline.jobs.execute", str(run.folder)], stdout=subprocess.DEVNULL
        )
        while not run["progress"].exists() and process.poll() is None:
            time.sleep(0.01)
        taken = time.perf_counter() - started
        process.kill()
        process.wait()
        return taken

    line = "import torch, timm, sklearn.metrics"
    ways = [
        Way(name=f"a fine-tune of {size.backbone.title}", once=once),
        Way(name=line, once=partial(_process, bench, "-c", line), role="limit"),
    ]
    notes = ["decoded images are found on scratch but for the first round, which decodes them"]
    return compare("from the process to the first step", "seconds", ways, bench, more_is_better=False, notes=notes)


def trials(bench: Bench) -> list[Table]:
    """What an engine adds: trials that are done already, two at a time."""
    engines = {
        name: title for name, title in ENGINES.items() if name == "workers" or (find_spec("ray") and not bench.quick)
    }
    first = [Row(name=title, role="ours", values=[]) for title in engines.values()]
    further = [Row(name=title, role="ours", values=[]) for title in engines.values()]
    size = SIZES["quick"]
    shards = sharded(bench.scratch / "toys", "toy", size.pixels)
    for number in range(bench.rounds):
        for engine, one, each in zip(engines, first, further, strict=True):
            bench.say(f"round {number + 1} of {bench.rounds}: trials with {engines[engine]}")
            runs = announced(bench, shards, size, device="cpu", threads=1, count=TRIALS)
            for run in runs:
                run["result"].write_text(json.dumps({}))
            command = [
                sys.executable,
                "-m",
                "pipeline.benchmarks.fanout",
                engine,
                "2",
                *(str(run.folder) for run in runs),
            ]
            started = time.time()
            subprocess.run(command, capture_output=True, check=True)
            said = sorted(run["log"].stat().st_mtime for run in runs)
            one.values.append(said[0] - started)
            each.values.append((said[-1] - said[0]) / (TRIALS - 1))
    notes = ["one process an actor or worker, kept for the next trial"]
    return [
        Table(title="to a fan-out's first trial", unit="seconds", rows=first, more_is_better=False),
        Table(title="each further trial", unit="seconds", rows=further, more_is_better=False, notes=notes),
    ]
