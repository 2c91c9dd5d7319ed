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
from pipeline.jobs.plan import Item, state_of
from pipeline.jobs.task import Task
from pipeline.runs import Run

YEAR_MINUTES = 60 * 24 * 365  # submitit's local executor ends jobs after two minutes unless told otherwise
POLL_SECONDS = 0.5
TELL_SECONDS = 5.0  # between SIGTERMs to a run that has not left yet; one that is starting may miss the first
RESTARTS = 2  # of a run whose process died without an error, in one launch


def gpu_count() -> int:
    """The GPUs this process may use, asked of the driver without importing torch."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return len([part for part in visible.split(",") if part.strip()])
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return 0
    return sum(line.startswith("GPU ") for line in listed.stdout.splitlines())


@dataclass
class Working:
    """A run with the process that carries it; None for one that an earlier launch left working."""

    item: Item
    job: Any
    gpu: int | None


def run_all(
    items: list[Item],
    cluster: Cluster,
    *,
    jobs: int,
    report: Callable[[list[Item], list[Item]], None],
) -> bool:
    """Bring `items` (parents first) to an end, never more than `jobs` at once, counting runs already at work.

    `report(items, working)` is called at every look. Returns False when it was interrupted. A run whose parent failed
    becomes `blocked`; every other run goes on.
    """
    gpus = gpu_count() if cluster.device != "cpu" else 0
    by_id = {item.run.id: item for item in items}
    working: list[Working] = [Working(item, None, None) for item in items if item.state == "running"]
    deaths: dict[str, int] = {}
    interrupted, told = False, 0.0
    with signals_noted() as asked:
        while True:
            for one in list(working):
                if one.job.done() if one.job is not None else one.item.run.state() != "running":
                    working.remove(one)
                    one.item.state = state_of(one.item.run, one.item.spec)
                    if one.item.state == "running":  # another launch's process has it; wait for that one
                        working.append(Working(one.item, None, one.gpu))
                    elif one.job is not None and one.item.state in ("pending", "interrupted") and not asked():
                        deaths[one.item.run.id] = deaths.get(one.item.run.id, 0) + 1
                        if deaths[one.item.run.id] > RESTARTS:
                            _note_death(one.item.run)
                            one.item.state = "failed"
            interrupted = interrupted or asked()
            if interrupted and time.monotonic() - told > TELL_SECONDS:
                told = time.monotonic()
                for one in working:
                    if one.job is not None:
                        one.job._process.send_signal(signal.SIGTERM)
            waiting = [item for item in items if item.state in ("pending", "interrupted", "missing")]
            for item in waiting:
                parent = by_id.get(item.parent or "")
                if parent is not None and parent.state in ("failed", "blocked", "not built", "no shards"):
                    item.state = "blocked"
                elif (
                    not interrupted
                    and len(working) < jobs
                    and (parent is None or parent.state == "done")
                    and item not in [one.item for one in working]
                ):
                    gpu = _free_gpu(gpus, working)
                    working.append(Working(item, _start(item, cluster, gpu), gpu))
                    item.state = "running"
            report(items, [one.item for one in working])
            if not working and (
                interrupted or not any(i.state in ("pending", "interrupted", "missing") for i in items)
            ):
                return not interrupted
            time.sleep(POLL_SECONDS)


def _free_gpu(gpus: int, working: list[Working]) -> int | None:
    if not gpus:
        return None
    return min(range(gpus), key=lambda gpu: sum(one.gpu == gpu for one in working))


def _start(item: Item, cluster: Cluster, gpu: int | None) -> Any:
    from submitit import LocalExecutor

    executor = LocalExecutor(folder=Path(cluster.runs) / ".submitit" / item.run.id)
    executor.update_parameters(
        timeout_min=YEAR_MINUTES,
        gpus_per_node=0 if gpu is None else 1,
        visible_gpus=() if gpu is None else (gpu,),
        stderr_to_stdout=True,
    )
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # the job inherits it: Ctrl-C is this process's to pass on
    try:
        return executor.submit(Task(str(item.run.folder)))
    finally:
        signal.signal(signal.SIGINT, before)


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
