"""The embedded executor: a plan's jobs as submitit local jobs on this machine, a bounded number at a time.

The files in the run folders are the truth; submitit's folder is scratch. Ctrl-C is kept from the jobs and passed on as
SIGTERM, so that every run saves before it leaves.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.jobs import submissions
from pipeline.jobs.fanout import RETRIES, carrier, note_death
from pipeline.jobs.life import VISIBLE, gpus, signals_noted
from pipeline.jobs.plan import STUCK, TO_DO, Plan, PlannedRun, state_of
from pipeline.jobs.snapshot import snapshot
from pipeline.jobs.submissions import Job

YEAR_MINUTES = 60 * 24 * 365  # submitit's local executor ends jobs after two minutes unless told otherwise
POLL_SECONDS = 0.5
TELL_SECONDS = 5.0  # between SIGTERMs to a job that has not left yet; one that is starting may miss the first


@dataclass
class Working:
    """Runs at work, with the job that carries them; None for those that another launch started."""

    job: Job
    process: Any
    """submitit's job."""
    gpu: str | None

    def ended(self) -> bool:
        if self.process is not None:
            return bool(self.process.done())
        return all(item.run.state() != "running" for item in self.job.runs)

    def ask_to_stop(self) -> None:
        if self.process is not None:
            self.process._process.send_signal(signal.SIGTERM)


class Queue:
    """Jobs to bring to an end, parents first, never more than `at_once`, those already at work counted."""

    def __init__(self, plan: Plan, at_once: int) -> None:
        self.grid = plan.grid
        self.items = list(plan.runs.values())
        self.by_id = plan.runs
        self.jobs = submissions.jobs_of(item for item in self.items if item.state in (*TO_DO, "running"))
        self.runs = Path(plan.cluster.runs)
        self.code = snapshot(self.runs)
        self.at_once = at_once
        self.gpus = gpus(plan.cluster)
        self.working = [
            Working(Job([item, *(other for other in self.items if other.published_by == item.run.id)]), None, None)
            for item in self.items
            if item.state == "running"
        ]
        self.deaths: dict[int, int] = {}

    def run(self, report: Callable[[list[PlannedRun], list[PlannedRun]], None]) -> bool:
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
                report(self.items, [item for item in self.items if item.state == "running"])
                if not self.working and (asked() or not any(item.state in TO_DO for item in self.items)):
                    return not asked()
                time.sleep(POLL_SECONDS)

    def collect(self, *, stopping: bool) -> None:
        """Take note of where runs stand; a job that died without an error is to do again, a few times."""
        for one in list(self.working):
            ended = one.ended()
            for item in one.job.runs:
                item.state = state_of(item.run, item.spec)
            if not ended:
                continue
            self.working.remove(one)
            for item in one.job.runs:
                if item.state == "running":  # another launch's process has it; wait for that one
                    self.working.append(Working(Job([item]), None, one.gpu))
            left = [item for item in one.job.runs if item.state in TO_DO and not self.is_blocked(item)]
            if left and one.process is not None and not stopping:
                together = one.job.fan_out  # of a pretraining run's job the first died; its milestones can go alone
                died = left if together else left[:1]
                key = id(one.job if together else left[0])
                self.deaths[key] = times = self.deaths.get(key, 0) + 1
                for item in died if times > RETRIES else []:
                    note_death(item.run, times)
                    item.state = "failed"

    def is_blocked(self, item: PlannedRun) -> bool:
        parent = self.by_id.get(item.parent or "")
        return parent is not None and parent.state in STUCK

    def start_what_can(self) -> None:
        """Start jobs whose parents have ended while there is room; block runs whose parent will never be."""
        busy = [id(one.job) for one in self.working]
        for job in self.jobs:
            if id(job) in busy:
                continue
            for item in job.runs:
                if item.state in TO_DO and self.is_blocked(item):
                    item.state = "blocked"
            ready = all(self.by_id[parent].state in ("done", *STUCK) for parent in job.parents)
            if not job.fan_out:  # another launch may have the run that carries the others
                ready = all(item.state != "running" for item in job.runs)
            if len(self.working) < self.at_once and ready and any(item.state in TO_DO for item in job.runs):
                gpu = min(self.gpus, key=lambda gpu: sum(one.gpu == gpu for one in self.working), default=None)
                self.working.append(Working(job, self.start(job, gpu), gpu))

    def start(self, job: Job, gpu: str | None) -> Any:
        from submitit import LocalExecutor

        left = Job([item for item in job.runs if item.state in TO_DO])
        submission = submissions.publish(
            self.runs, submissions.JobArray(f"{self.grid}.{job.name()}", [left], frozenset(), 1), self.code
        )
        executor = LocalExecutor(folder=submission.folder / "submitit")
        executor.update_parameters(timeout_min=YEAR_MINUTES, stderr_to_stdout=True)
        # submitit numbers GPUs from 0 whatever this process may use, and hides them all unless told a number
        os.environ[VISIBLE] = gpu if gpu is not None else os.environ.get("CUDA_VISIBLE_DEVICES", "all")
        # the job inherits it: Ctrl-C is this process's to pass on
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            with running_copy(self.code):
                return executor.submit(carrier(submission, 0))
        finally:
            signal.signal(signal.SIGINT, before)
            del os.environ[VISIBLE]


@contextmanager
def running_copy(folder: Path) -> Iterator[None]:
    """Make processes started now import the package from this copy: python -m looks into the current folder first."""
    here, path = os.getcwd(), os.environ.get("PYTHONPATH", "")
    os.chdir(folder)
    os.environ["PYTHONPATH"] = f"{folder}{os.pathsep}{path}"
    try:
        yield
    finally:
        os.chdir(here)
        os.environ["PYTHONPATH"] = path
