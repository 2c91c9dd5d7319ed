"""Starting: how long a person waits for a command's answer, and a job for its first step."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from functools import partial

from pipeline.benchmarks.support.measure import Case, Settings, compare, seconds
from pipeline.benchmarks.support.raw_images import make_shards
from pipeline.benchmarks.support.tables import Row, Table
from pipeline.benchmarks.support.trials import ENGINES, WORKLOADS, command, is_installed, make_runs

TITLE = "commands, runs and trials, from the start of a process"
COMMANDS = (("launch", "--help"), ("launch", "--grid", "main", "--dry-run"), ("status", "--grid", "main"))
LIBRARIES = "import torch, timm, sklearn.metrics"
QUICK_LIBRARIES = "import numpy"


def run(settings: Settings) -> list[Table]:
    """Seconds of whole processes, until a run's first step, and until a fan-out's trials."""
    return [commands(settings), first_step(settings), *trials(settings)]


def commands(settings: Settings) -> Table:
    """Commands that must answer at once, and the libraries that they therefore do not import."""
    imports = ["import torch", "import timm"] + ["import ray.tune"] * is_installed("ray_tune")
    if settings.quick:
        imports = [QUICK_LIBRARIES]
    cases = [
        Case(name=" ".join(words), measure=partial(_process, settings, "-m", f"pipeline.{words[0]}", *words[1:]))
        for words in COMMANDS
    ]
    cases += [Case(name=line, measure=partial(_process, settings, "-c", line), role="limit") for line in imports]
    cases += [Case(name="python alone", measure=partial(_process, settings, "-c", "pass"), role="limit")]
    return compare("commands as whole processes", "seconds", cases, settings, more_is_better=False)


def _process(settings: Settings, *arguments: str) -> float:
    return seconds(lambda: subprocess.run([sys.executable, *arguments], capture_output=True, cwd=settings.scratch))


def first_step(settings: Settings) -> Table:
    """From the start of a run's process to the end of its first step."""
    workload = WORKLOADS["quick"]
    shards = make_shards(settings.scratch / "toys", "toy", workload.pixels)

    def measure() -> float:
        run = make_runs(settings, shards, workload, device="cpu", threads=1, count=1)[0]
        started = time.perf_counter()
        words = [sys.executable, "-m", "pipeline.jobs.execute", str(run.folder)]
        process = subprocess.Popen(words, stdout=subprocess.DEVNULL)
        while not run["progress"].exists() and process.poll() is None:
            time.sleep(0.01)
        taken = time.perf_counter() - started
        if process.poll():
            raise RuntimeError(f"a run failed before its first step: {run.reason()}")
        process.kill()
        process.wait()
        return taken

    imports = QUICK_LIBRARIES if settings.quick else LIBRARIES
    cases = [
        Case(name=f"a fine-tune of {workload.backbone.title}", measure=measure),
        Case(name=imports, measure=partial(_process, settings, "-c", imports), role="limit"),
    ]
    notes = ["the first round decodes the images; the others find them decoded in the scratch folder"]
    title = "from the process to the first step"
    return compare(title, "seconds", cases, settings, more_is_better=False, notes=notes)


def trials(settings: Settings) -> list[Table]:
    """The overhead of an engine: trials whose runs are done already, two at a time."""
    engines = ["processes"] if settings.quick else [engine for engine in ENGINES if is_installed(engine)]
    count = 4 if settings.quick else 40
    first = [Row(name=ENGINES[engine], role="ours", values=[]) for engine in engines]
    further = [Row(name=ENGINES[engine], role="ours", values=[]) for engine in engines]
    workload = WORKLOADS["quick"]
    shards = make_shards(settings.scratch / "toys", "toy", workload.pixels)
    for number in range(settings.rounds):
        for engine, to_first, per_further in zip(engines, first, further, strict=True):
            settings.say(f"round {number + 1} of {settings.rounds}: trials with {ENGINES[engine]}")
            runs = make_runs(settings, shards, workload, device="cpu", threads=1, count=count)
            for run in runs:
                run["result"].write_text(json.dumps({}))
            started = time.time()
            subprocess.run(command(engine, 2, runs), capture_output=True, check=True)
            written = sorted(run["log"].stat().st_mtime for run in runs)
            to_first.values.append(written[0] - started)
            per_further.values.append((written[-1] - written[0]) / (count - 1))
    notes = ["an actor or worker is one process that executes one trial after another"]
    return [
        Table(title="until a fan-out's first trial", unit="seconds", rows=first, more_is_better=False),
        Table(title="each further trial", unit="seconds", rows=further, more_is_better=False, notes=notes),
    ]
