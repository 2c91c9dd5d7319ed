"""The Slurm executor: a launch that stays until its runs have ended, and sends again what lost its job."""

from __future__ import annotations

import time
from pathlib import Path

from pipeline.jobs import submissions
from pipeline.jobs.plan import STUCK, TO_DO, Plan, PlanProgress
from pipeline.jobs.signals import signals_noted
from pipeline.jobs.slurm import limits
from pipeline.jobs.slurm.attempts import Attempts
from pipeline.jobs.slurm.queue import queued_runs
from pipeline.jobs.slurm.scheduler import QueuedJob, queued_jobs
from pipeline.jobs.slurm.sending import submit_missing

POLL_SECONDS = 2.0  # between polls of the run folders
QUEUE_POLLS = 5  # of the run folders for one of the queue


def run_plan(plan: Plan, progress: PlanProgress) -> bool:
    """Submit what is to do, and stay until every run has ended; False if Ctrl-C or SIGTERM asked to leave before.

    The jobs stay when it leaves. A run that starts from a failed run becomes `blocked`. A run whose job ended before it
    is sent again while its jobs get further (`Attempts`), unless a person cancelled the job.
    """
    runs = Path(plan.cluster.runs)
    attempts = Attempts(runs, accounting=plan.cluster.slurm.accounting)
    live: dict[str, QueuedJob] = {}
    begun, lost, told, trouble, unread = False, True, list[str](), "", ""
    site = limits.read_limits(plan.cluster.slurm)
    before = submissions.cancelled_submissions(runs)
    with signals_noted("leaving; the jobs continue") as asked:
        while not asked():
            try:
                if submissions.cancelled_runs(runs, but=before) & plan.runs.keys():
                    progress.say(["another command cancelled runs of this grid; they are not submitted again"])
                    return False
                live = queued_runs(runs, queued_jobs(runs))
                progress.say(attempts.note_queue({run: job for run, job in live.items() if run in plan.runs}))
                if lost:
                    sent, said = submit_missing(plan, but=attempts.cancelled, site=site)
                    attempts.note_sent(sent)
                    progress.say([line for line in said if line not in told])
                    told = said
                    live = queued_runs(runs, queued_jobs(runs))
                begun, trouble = True, ""
            except (ValueError, OSError) as error:  # also a run's folder that somebody deletes, a disk that is away
                if not begun:
                    raise
                trouble = _told(progress, str(error), trouble)
            for _ in range(QUEUE_POLLS):
                unread = _told(progress, look(plan, progress), unread)
                if asked():
                    return False
                time.sleep(POLL_SECONDS)
            left = {
                planned.run.id
                for planned in plan.in_state(*TO_DO)
                if not {planned.run.id, planned.parent} & attempts.cancelled
            }
            lost = bool(left - live.keys())
            if not lost and not live.keys() & left and not plan.in_state("running"):
                return True
    return False


def _told(progress: PlanProgress, problem: str, before: str) -> str:
    """Say a problem, unless it was said before or there is none; returns it."""
    if problem and problem != before:
        progress.say([f"trying again soon: {problem}"])
    return problem


def look(plan: Plan, progress: PlanProgress) -> str:
    """Read and show the states; returns what cannot be read now: a disk may be away for a moment."""
    problem = refresh(plan)
    try:
        progress.show(plan)
    except (ValueError, OSError) as error:  # it reads, too
        problem = problem or str(error)
    return problem


def refresh(plan: Plan) -> str:
    """Read the states again; a run that starts from a failed or damaged run is `blocked`.

    A run that cannot be read keeps the state it had; returns why, of the first such run.
    """
    problem = ""
    needed = {planned.parent for planned in plan.in_state(*TO_DO)}  # a run that starts from one may find it damaged
    for name, planned in plan.runs.items():
        if planned.state != "done" or name in needed:
            try:
                planned.refresh()
            except (ValueError, OSError) as error:
                problem = problem or str(error)
    for planned in plan.in_state(*TO_DO):
        if planned.parent and plan.runs[planned.parent].state in STUCK:
            planned.state = "blocked"
    return problem
