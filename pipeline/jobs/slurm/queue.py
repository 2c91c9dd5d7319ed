"""Which runs Slurm has jobs for: the queue and accounting, matched with the submissions on disk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.jobs import submissions
from pipeline.jobs.plan import TO_DO, Plan
from pipeline.jobs.slurm.endings import endings
from pipeline.jobs.slurm.scheduler import QueuedJob, queued_jobs


def queued_runs(runs: Path, jobs: Sequence[QueuedJob]) -> dict[str, QueuedJob]:
    """The runs that the jobs in the queue train or will train, by run id."""
    by_id = {job.id: job for job in jobs}
    seen = {job.submission: job.id.split("_")[0] for job in jobs}
    out: dict[str, QueuedJob] = {}
    for submission in submissions.read_submissions(runs):
        for task, its_runs in submission.live_tasks(seen.get(submission.id, "")):
            job = by_id.get(task)
            if job and job.submission == submission.id:  # a cluster that is set up again gives the same job ids again
                out |= {run: job for run in its_runs}
    return out


@dataclass(frozen=True)
class QueueView:
    """What Slurm shows of a plan's runs."""

    jobs: dict[str, QueuedJob]
    """The job in the queue, by run id."""
    ended: dict[str, tuple[str, str]]
    """For runs to do that have no job in the queue: their last job, and how it ended in words."""
    problem: str = ""
    """Why the queue could not be read."""


def read_queue(plan: Plan) -> QueueView:
    """Ask the queue once; of runs that lost their jobs, the controller and accounting once each; never fails."""
    runs = Path(plan.cluster.runs)
    try:
        jobs = queued_runs(runs, queued_jobs(runs))
    except ValueError as error:
        return QueueView({}, {}, str(error))
    left = {planned.run.id for planned in plan.in_state(*TO_DO) if planned.run.id not in jobs}
    last: dict[str, str] = {}
    for submission in submissions.read_submissions(runs) if left else []:
        last |= {run: task for task, its_runs in submission.live_tasks() for run in left.intersection(its_runs)}
    how = endings(last.values(), accounting=plan.cluster.slurm.accounting)
    words = {job: how[job].words if job in how else "not known to the queue any more" for job in last.values()}
    return QueueView(jobs, {run: (job, words[job]) for run, job in last.items()})
