"""The Slurm executor: a plan's jobs as arrays, each sent exactly once.

An array is sent held and released when its id is on disk, so a launch killed in between leaves nothing that could run
twice: the next one cancels held arrays that no submission knows, and releases those that a submission does. Slurm is asked what
is in its queue; what became of a run is read from its folder.
"""

from __future__ import annotations

import dataclasses
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.core import files
from pipeline.jobs import submissions
from pipeline.jobs.fanout import RETRIES
from pipeline.jobs.life import signals_noted
from pipeline.jobs.plan import STUCK, TO_DO, Plan, PlannedRun, assign_milestones, publish, state_of
from pipeline.jobs.slurm import submit
from pipeline.jobs.slurm.scheduler import QueuedJob, ask, ended, max_array_size, queued_jobs, user_jobs
from pipeline.jobs.snapshot import snapshot
from pipeline.jobs.submissions import JobArray, Submission

LAUNCH_PATIENCE = 600.0  # seconds for another launch to end its own submission
POLL_SECONDS = 2.0  # between looks at the files
LOOKS = 5  # at the files for one at the queue


def carried(runs: Path, jobs: Sequence[QueuedJob]) -> dict[str, QueuedJob]:
    """The runs that jobs in the queue stand for."""
    by_id = {job.id: job for job in jobs}
    out: dict[str, QueuedJob] = {}
    for submission in submissions.read_submissions(runs):
        for task, carries in submission.live_tasks():
            job = by_id.get(task)
            if job and job.token == submission.token:  # a cluster that began anew gives the same ids again
                out |= {run: job for run in carries}
    return out


@dataclass(frozen=True)
class Seen:
    """What Slurm shows of a plan's runs."""

    jobs: dict[str, QueuedJob]
    """The job in the queue that carries a run."""
    ended: dict[str, tuple[str, str]]
    """For a run that is to do and that no job carries: the last job that did, and how it ended by accounting."""
    problem: str = ""
    """Why the queue could not be read."""


def look(plan: Plan) -> Seen:
    """One look at the queue and, where runs lost their jobs, one at the accounting; never fails."""
    runs = Path(plan.cluster.runs)
    try:
        jobs = carried(runs, queued_jobs(runs))
    except ValueError as error:
        return Seen({}, {}, str(error))
    left = {name for name, item in plan.runs.items() if item.state in TO_DO and name not in jobs}
    last: dict[str, str] = {}
    for submission in submissions.read_submissions(runs) if left else []:
        last |= {run: task for task, carries in submission.live_tasks() for run in left.intersection(carries)}
    how = ended(last.values()) if plan.cluster.slurm.accounting else {}
    return Seen(jobs, {run: (job, how.get(job, "not known to the queue any more")) for run, job in last.items()})


def mend(runs: Path, jobs: Sequence[QueuedJob]) -> list[str]:
    """Bring submissions and queue together after a launch was killed in between; says what it did."""
    said = []
    known = {submission.token: submission for submission in submissions.read_submissions(runs)}
    for token in {job.token for job in jobs} | set(known):
        theirs = [job.id for job in jobs if job.token == token]
        array = theirs[0].split("_")[0] if theirs else ""
        submission = known.get(token)
        if submission is None or (not submission.job and not submission.by_hand):
            held = all(job.reason == "JobHeldUser" for job in jobs if job.token == token)
            if array and held:
                ask("scancel", array)
                said.append(f"cancelled {array}: held, and its launch was killed before it could note it")
            if submission is not None and array and not held:
                submission.note_job(array, released=True)
            elif submission is not None:
                submission.remove()
        elif not submission.job and array:
            submission.note_job(array, released=True)
        elif submission.job and not submission.job["released"]:
            if array:
                ask("scontrol", "release", array)
                said.append(f"released {array}, whose launch was killed before it could")
            submission.note_job(submission.job["id"], released=True)
    return said


def arrays_to_send(plan: Plan, live: Mapping[str, QueuedJob], *, limit: int) -> list[JobArray]:
    """What is to be sent: wanted, not done, not failed, not carried by a job, and its parents done or in the queue."""
    items = plan.runs
    assign_milestones(items.values(), taken=live)
    left = [item for item in items.values() if item.state in TO_DO and item.run.id not in live]
    todo = {item.run.id: item for item in left if not item.published_by or items[item.published_by].state != "running"}

    def can_go(item: PlannedRun) -> bool:
        return item.parent is None or items[item.parent].state == "done" or item.parent in live or item.parent in todo

    chosen = submissions.jobs_of(item for item in todo.values() if can_go(item))
    waits_for = {name for name, item in items.items() if item.state != "done"}
    return submissions.job_arrays(
        plan.grid, chosen, waits_for=waits_for, limit=limit, parallelism=plan.cluster.slurm.parallelism
    )


def submit_missing(plan: Plan, *, limit: int | None = None) -> tuple[list[Submission], list[str]]:
    """Send what is wanted and neither done nor at work; returns the submissions sent and what else was done.

    One launch at a time does this, so two launched at once make one plan.
    """
    runs, slurm = Path(plan.cluster.runs), plan.cluster.slurm
    with files.lock(runs / ".launch.lock", patience=LAUNCH_PATIENCE, what="another launch's submission"):
        said = mend(runs, queued_jobs(runs))
        live = carried(runs, queued_jobs(runs))
        for item in plan.runs.values():
            item.state = state_of(item.run, item.spec)
        chosen = arrays_to_send(plan, live, limit=limit or max_array_size())
        room = slurm.max_jobs - user_jobs() if slurm.max_jobs else None
        jobs = {run: job.id for run, job in live.items()}
        code = snapshot(runs)
        publish(plan, [item for array in chosen for job in array.jobs for item in job.runs])
        sent = []
        for array in chosen:
            whole = len(array.jobs)
            if room is not None:
                fits = room if array.parents <= set(jobs) else 0
                array = dataclasses.replace(array, jobs=array.jobs[: max(0, fits)])
                room -= len(array.jobs)
            if left := whole - len(array.jobs):
                said.append(
                    f"{array.name}: {left} of {whole} jobs wait for a later launch: max_jobs is {slurm.max_jobs}"
                )
            if not array.jobs:
                continue
            submission = submissions.publish(runs, array, code)
            job_id = submit.send(
                submission, plan.cluster, code, after=sorted(jobs[run] for run in array.parents), array=array
            )
            sent.append(submission)
            jobs |= {run: task for task, carries in submission.live_tasks() for run in carries}
            said.append(f"sent {job_id} {array.name}: {array}")
    return sent, said


def follow(
    plan: Plan, report: Callable[[list[PlannedRun], list[PlannedRun]], None], say: Callable[[list[str]], None]
) -> bool:
    """Send, and stay until every run has ended; False when Ctrl-C or SIGTERM asked to leave (the jobs go on).

    What lost its job without an error is sent again, a few times; what starts from a failed run becomes `blocked`.
    """
    runs, items = Path(plan.cluster.runs), list(plan.runs.values())
    times: Counter[str] = Counter()
    live: dict[str, QueuedJob] | None = None
    lost = True
    before = submissions.cancelled(runs)
    with signals_noted() as asked:
        while not asked():
            if (submissions.cancelled(runs) - before) & plan.runs.keys():
                say(["another command cancelled runs of this grid; leaving it at that"])
                return False
            try:
                if lost:
                    sent, said = submit_missing(plan)
                    say(said)
                    times.update(run for submission in sent for part in submission.tasks for run in part)
                live = carried(runs, queued_jobs(runs))
            except ValueError as error:
                if live is None:
                    raise
                say([f"looking again soon: {error}"])
            for _ in range(LOOKS):
                refresh(plan)
                report(items, [item for item in items if item.state == "running"])
                if asked():
                    return False
                time.sleep(POLL_SECONDS)
            left = [item.run.id for item in items if item.state in TO_DO]
            lost = any(run not in live and times[run] <= RETRIES for run in left)
            if not lost and not live.keys() & left and not any(item.state == "running" for item in items):
                return True
    return False


def refresh(plan: Plan) -> None:
    """Read the states anew; what starts from a run that failed is `blocked`."""
    for item in plan.runs.values():
        if item.state != "done":
            item.state = state_of(item.run, item.spec)
    for item in plan.runs.values():
        if item.state in TO_DO and item.parent and plan.runs[item.parent].state in STUCK:
            item.state = "blocked"


def script(plan: Plan) -> str:
    """A shell script that sends what is to be sent with sbatch alone; the plan and its submissions are published."""
    runs = Path(plan.cluster.runs)
    lines = ["#!/bin/bash", "set -euo pipefail"]
    with files.lock(runs / ".launch.lock", patience=LAUNCH_PATIENCE, what="another launch's submission"):
        live = carried(runs, queued_jobs(runs))
        jobs = {run: job.id for run, job in live.items()}
        code = snapshot(runs)
        for number, array in enumerate(arrays_to_send(plan, live, limit=max_array_size())):
            publish(plan, [item for job in array.jobs for item in job.runs])
            submission = submissions.publish(runs, array, code, by_hand=True)
            text = submit.sbatch_text(submission, plan.cluster, code, parallelism=array.parallelism)
            after = "".join(f":{jobs[run]}" for run in sorted(array.parents))
            lines += [
                "",
                f"job{number}=$(sbatch --parsable {'--dependency=afterany' + after if after else ''} <<'END'",
                text,
                "END",
                ")",
                f'echo "sent $job{number} {array.name}: {array}"',
            ]
            task = "" if len(submission.tasks) == 1 else "_{}"
            for index, part in enumerate(submission.tasks):
                jobs |= {run: f"${{job{number}}}" + task.format(index) for run in part}
    return "\n".join(lines)
