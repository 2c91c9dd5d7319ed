"""The embedded executor: a plan's runs as submitit local jobs on this machine, a bounded number at a time.

The files in the run folders are the truth; submitit's folder is scratch. Ctrl-C is kept from the jobs and passed on as
SIGTERM, so that every run saves before it leaves.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline import files
from pipeline.cluster import Cluster
from pipeline.jobs.plan import STUCK, TO_DO, Item, state_of
from pipeline.jobs.task import VISIBLE, Task
from pipeline.runs import Run

YEAR_MINUTES = 60 * 24 * 365  # submitit's local executor ends jobs after two minutes unless told otherwise
POLL_SECONDS = 0.5
TELL_SECONDS = 5.0  # between SIGTERMs to a run that has not left yet; one that is starting may miss the first
RESTARTS = 2  # of a run whose process died without an error, in one launch


def gpus(cluster: Cluster) -> list[str]:
    """The GPUs this process may use, as CUDA_VISIBLE_DEVICES names them; torch is not imported to ask."""
    if cluster.device == "cpu":
        return []
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        names = [name.strip() for name in visible.split(",")]
        return [name for name in names if name and name != "-1"]
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=20).stdout
        return [str(i) for i, _ in enumerate(line for line in listed.splitlines() if line.startswith("GPU "))]
    except (OSError, subprocess.TimeoutExpired):  # no tool, as in some containers; the driver lists them too
        return [str(i) for i, _ in enumerate(Path("/proc/driver/nvidia/gpus").glob("*"))]


@dataclass
class Working:
    """A run at work, with the job that carries it; None for one that another launch started."""

    item: Item
    job: Any
    gpu: str | None

    def ended(self) -> bool:
        return bool(self.job.done()) if self.job is not None else self.item.run.state() != "running"

    def ask_to_stop(self) -> None:
        if self.job is not None:
            self.job._process.send_signal(signal.SIGTERM)


class Queue:
    """Runs to bring to an end, parents first, never more than `jobs` at once, those already at work counted."""

    def __init__(self, items: list[Item], cluster: Cluster, jobs: int) -> None:
        self.items = items
        self.by_id = {item.run.id: item for item in items}
        self.cluster = cluster
        self.jobs = jobs
        self.gpus = gpus(cluster)
        self.working = [Working(item, None, None) for item in items if item.state == "running"]
        self.deaths: dict[str, int] = {}

    def run(self, report: Callable[[list[Item], list[Item]], None]) -> bool:
        """Work until all is done, failed or blocked; False when Ctrl-C or SIGTERM asked to stop before.

        `report(items, at work)` is called at every look. A run whose parent failed becomes `blocked`; all others go on.
        """
        told = 0.0
        with signals_noted() as asked:
            while True:
                self.collect(stopping=asked())
                if not asked():
                    self.start_what_can()
                elif time.monotonic() - told > TELL_SECONDS:
                    told = time.monotonic()
                    for one in self.working:
                        one.ask_to_stop()
                report(self.items, [one.item for one in self.working])
                if not self.working and (asked() or not any(item.state in TO_DO for item in self.items)):
                    return not asked()
                time.sleep(POLL_SECONDS)

    def collect(self, *, stopping: bool) -> None:
        """Take note of runs whose process ended; one that died without an error is to do again, a few times."""
        for one in [one for one in self.working if one.ended()]:
            self.working.remove(one)
            item = one.item
            item.state = state_of(item.run, item.spec)
            if item.state == "running":  # another launch's process has it; wait for that one
                self.working.append(Working(item, None, one.gpu))
            elif item.state in TO_DO and one.job is not None and not stopping:
                self.deaths[item.run.id] = self.deaths.get(item.run.id, 0) + 1
                if self.deaths[item.run.id] > RESTARTS:
                    _note_death(item.run)
                    item.state = "failed"

    def start_what_can(self) -> None:
        """Start runs whose parent is done while there is room; block those whose parent will never be."""
        for item in self.items:
            if item.state not in TO_DO:
                continue
            parent = self.by_id.get(item.parent or "")
            if parent is not None and parent.state in STUCK:
                item.state = "blocked"
            elif len(self.working) < self.jobs and (parent is None or parent.state == "done"):
                gpu = min(self.gpus, key=lambda gpu: sum(one.gpu == gpu for one in self.working), default=None)
                self.working.append(Working(item, _start(item.run, self.cluster, gpu), gpu))
                item.state = "running"


def _start(run: Run, cluster: Cluster, gpu: str | None) -> Any:
    from submitit import LocalExecutor

    executor = LocalExecutor(folder=Path(cluster.runs) / ".submitit" / run.id)
    executor.update_parameters(timeout_min=YEAR_MINUTES, stderr_to_stdout=True)
    # submitit numbers GPUs from 0 whatever this process may use, and hides them all unless told a number
    os.environ[VISIBLE] = gpu if gpu is not None else os.environ.get("CUDA_VISIBLE_DEVICES", "all")
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # the job inherits it: Ctrl-C is this process's to pass on
    try:
        return executor.submit(Task(str(run.folder)))
    finally:
        signal.signal(signal.SIGINT, before)
        del os.environ[VISIBLE]


def _note_death(run: Run) -> None:
    """Give a run whose process keeps dying without a word an error to show."""
    files.write_text(
        run["error"],
        f"its process died {RESTARTS + 1} times and left no error: killed, or out of memory; launch --retry goes on "
        "from its last checkpoint\n",
    )


@contextmanager
def signals_noted() -> Iterator[Callable[[], bool]]:
    """Note SIGINT and SIGTERM instead of dying of them."""
    asked: list[int] = []
    before = {
        number: signal.signal(number, lambda number, frame: asked.append(number))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
