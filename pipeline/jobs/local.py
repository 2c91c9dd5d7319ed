"""The executor of this machine: a plan's jobs as submitit local jobs, a bounded number at the same time.

The files in the run folders are the state; submitit's folder is scratch. A launch keeps Ctrl-C from its jobs and passes
it on as SIGTERM, so that every run saves before it leaves.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.jobs import submissions
from pipeline.jobs.arrays import Job, JobArray, jobs_of
from pipeline.jobs.fanout import RETRIES, note_deaths, payload_of
from pipeline.jobs.gpus import VISIBLE, gpus, jobs_at_once
from pipeline.jobs.plan import STUCK, TO_DO, Plan, PlannedRun, PlanProgress, publish
from pipeline.jobs.signals import signals_noted
from pipeline.jobs.snapshot import snapshot

YEAR_MINUTES = 60 * 24 * 365  # submitit's local executor ends jobs after two minutes unless it is given a limit
POLL_SECONDS = 0.5
ASK_SECONDS = 5.0  # between SIGTERMs to a job that has not left yet; a job that is starting may miss the first


def run_plan(plan: Plan, progress: PlanProgress) -> bool:
    """Start what is to do, and stay until every run has ended; False if Ctrl-C or SIGTERM asked to stop before.

    A run that starts from a failed run becomes `blocked`; all others continue. Runs whose job died without an error are
    started again up to `RETRIES` times.
    """
    publish(plan, plan.in_state(*TO_DO))
    return JobQueue(plan).run(progress)


@dataclass
class Working:
    """A job whose runs are being trained."""

    job: Job
    process: Any
    """submitit's job; None if another launch started it."""
    gpu: str | None

    def ended(self) -> bool:
        if self.process is not None:
            return bool(self.process.done())
        return all(planned.run.state() != "running" for planned in self.job.runs)

    def ask_to_stop(self) -> None:
        if self.process is not None:
            self.process._process.send_signal(signal.SIGTERM)


class JobQueue:
    """The jobs of a plan, parents first. At most `at_once` work, and those of other launches count."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.jobs = jobs_of(plan.in_state(*TO_DO, "running"))
        self.code = snapshot(Path(plan.cluster.runs))
        self.at_once = jobs_at_once(plan.cluster)
        self.gpus = gpus(plan.cluster)
        runs = plan.runs.values()
        self.working = [
            Working(Job([planned, *(other for other in runs if other.published_by == planned.run.id)]), None, None)
            for planned in plan.in_state("running")
        ]
        self.deaths: dict[int, int] = {}

    def run(self, progress: PlanProgress) -> bool:
        """Work until all runs are done, failed or blocked; False if a signal asked to stop before."""
        asked_at = 0.0
        with signals_noted("stopping; each run is saving") as asked:
            while True:
                self.collect(stopping=asked())
                if not asked():
                    self.start_ready()
                elif time.monotonic() - asked_at > ASK_SECONDS:
                    asked_at = time.monotonic()
                    for working in self.working:
                        working.ask_to_stop()
                progress.show(self.plan)
                if not self.working and (asked() or not self.plan.in_state(*TO_DO)):
                    return not asked()
                time.sleep(POLL_SECONDS)

    def collect(self, *, stopping: bool) -> None:
        """Read the states of the runs; count the deaths of jobs that left no error, and fail runs at too many."""
        for working in list(self.working):
            ended = working.ended()
            for planned in working.job.runs:
                planned.refresh()
            if not ended:
                continue
            self.working.remove(working)
            for planned in working.job.runs:
                if planned.state == "running":  # another launch's process has it; wait for that one
                    self.working.append(Working(Job([planned]), None, working.gpu))
            left = [planned for planned in working.job.runs if planned.state in TO_DO and not self.is_blocked(planned)]
            if left and working.process is not None and not stopping:
                fan_out = working.job.fan_out  # of a pretraining job the first run died; its milestones can go alone
                died = left if fan_out else left[:1]
                key = id(working.job if fan_out else left[0])
                self.deaths[key] = times = self.deaths.get(key, 0) + 1
                for planned in died if times > RETRIES else []:
                    note_deaths(planned.run, times)
                    planned.state = "failed"

    def is_blocked(self, planned: PlannedRun) -> bool:
        parent = self.plan.runs.get(planned.parent or "")
        if parent is not None and parent.state == "done":
            parent.refresh()  # the run itself may have found its weights damaged
        return parent is not None and parent.state in STUCK

    def start_ready(self) -> None:
        """Start jobs whose parents have ended while there is room; block runs whose parent will not be done."""
        busy = [id(working.job) for working in self.working]
        for job in self.jobs:
            if id(job) in busy:
                continue
            for planned in job.runs:
                if planned.state in TO_DO and self.is_blocked(planned):
                    planned.state = "blocked"
            ready = all(self.plan.runs[parent].state in ("done", *STUCK) for parent in job.parents)
            if not job.fan_out:  # another launch may train the run that publishes the others
                ready = all(planned.state != "running" for planned in job.runs)
            if len(self.working) < self.at_once and ready and any(planned.state in TO_DO for planned in job.runs):
                gpu = min(self.gpus, key=lambda gpu: sum(working.gpu == gpu for working in self.working), default=None)
                self.working.append(Working(job, self.start(job, gpu), gpu))

    def start(self, job: Job, gpu: str | None) -> Any:
        """Start a process for the runs of the job that are to do; returns submitit's job."""
        from submitit import LocalExecutor

        left = Job([planned for planned in job.runs if planned.state in TO_DO])
        array = JobArray(f"{self.plan.grid}.{job.name()}", [left], frozenset(), 1)
        submission = submissions.publish(Path(self.plan.cluster.runs), array, self.code)
        executor = LocalExecutor(folder=submission.folder / "submitit")
        executor.update_parameters(timeout_min=YEAR_MINUTES, stderr_to_stdout=True)
        # submitit numbers GPUs from 0 whatever this process may use, and hides them all unless given a number
        os.environ[VISIBLE] = gpu if gpu is not None else os.environ.get("CUDA_VISIBLE_DEVICES", "all")
        # the job inherits it: this process passes Ctrl-C on
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            with running_copy(self.code):
                return executor.submit(payload_of(submission, 0))
        finally:
            signal.signal(signal.SIGINT, before)
            del os.environ[VISIBLE]


@contextmanager
def running_copy(folder: Path) -> Iterator[None]:
    """Make processes started in this block import the package from this copy: `python -m` searches the current folder
    first."""
    here, path = os.getcwd(), os.environ.get("PYTHONPATH", "")
    os.chdir(folder)
    os.environ["PYTHONPATH"] = f"{folder}{os.pathsep}{path}"
    try:
        yield
    finally:
        os.chdir(here)
        os.environ["PYTHONPATH"] = path
