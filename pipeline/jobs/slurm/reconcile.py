"""The Slurm executor: a plan's jobs as arrays, each sent exactly once.

An array is sent held, and released when its id is on disk. So a launch that is killed in between leaves nothing that
could run twice: the next launch cancels held arrays that no submission knows, and releases those that one knows. The
queue says what is live; the run folders say what is done.
"""

from __future__ import annotations

import contextlib
import dataclasses
import shlex
import time
from collections.abc import Container, Iterator, Mapping, Sequence
from pathlib import Path

from pipeline.core import files
from pipeline.core.console import counted
from pipeline.jobs import submissions
from pipeline.jobs.arrays import JobArray, job_arrays, jobs_of, side_by_side
from pipeline.jobs.plan import STUCK, TO_DO, Plan, PlannedRun, PlanProgress, assign_milestones, publish
from pipeline.jobs.signals import signals_noted
from pipeline.jobs.slurm import limits, submit
from pipeline.jobs.slurm.attempts import Attempts
from pipeline.jobs.slurm.limits import Limit
from pipeline.jobs.slurm.queue import queued_runs
from pipeline.jobs.slurm.scheduler import QueuedJob, ask, max_array_size, queued_jobs, scancel
from pipeline.jobs.snapshot import snapshot
from pipeline.jobs.submissions import Submission

LAUNCH_PATIENCE = 600.0  # seconds for another launch to end its own submission
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
    begun, lost, told, unread = False, True, list[str](), ""
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
                begun = True
            except (ValueError, OSError) as error:  # also a run's folder that somebody deletes, a disk that is away
                if not begun:
                    raise
                progress.say([f"trying again soon: {error}"])
            for _ in range(QUEUE_POLLS):
                if (problem := look(plan, progress)) and problem != unread:
                    progress.say([f"trying again soon: {problem}"])
                unread = problem
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


def submit_missing(
    plan: Plan, *, limit: int | None = None, but: Container[str] = (), site: Sequence[Limit] | None = None
) -> tuple[list[Submission], list[str]]:
    """Send the runs that are wanted and neither done nor live; returns the submissions, and in words what was done.

    Runs in `but` are left out, and so is what would exceed the limits of the site (`site`; None: they are read now) or
    the cluster file's `max_jobs`: a later call sends it.

    Two launches at the same time do this one after the other, so together they send every run once.
    """
    runs, slurm = Path(plan.cluster.runs), plan.cluster.slurm
    with launch_lock(runs):
        said = repair(runs, queued_jobs(runs))
        live = queued_runs(runs, queued_jobs(runs))
        for planned in plan.runs.values():
            planned.refresh()
        arrays = arrays_to_send(plan, live, limit=limit or max_array_size(), but=but)
        room, why = limits.room(limits.read_limits(slurm) if site is None else site, slurm.max_jobs)
        jobs = {run: job.id for run, job in live.items()}
        code = snapshot(runs)
        publish(plan, [planned for array in arrays for job in array.jobs for planned in job.runs])
        sent: list[Submission] = []
        for array in arrays:
            whole = len(array.jobs)
            array = _fitting(array, room, jobs)
            after = sorted(jobs[run] for run in array.parents) if array.jobs else []
            while array.jobs:
                submission = submissions.publish(runs, array, code)
                try:
                    job_id = submit.send(submission, plan.cluster, code, after=after, parallelism=array.parallelism)
                except ValueError as error:  # others' jobs count too, or the site hides a limit
                    if limits.FULL not in str(error) or (len(array.jobs) == 1 and not (sent or live)):
                        raise ValueError("; before that it ".join([str(error), *said])) from error
                    array = dataclasses.replace(array, jobs=array.jobs[: len(array.jobs) // 2])
                    room, why = len(array.jobs), "sbatch says that the site takes no more of them now"
                    continue
                sent.append(submission)
                jobs |= {run: task for task, its_runs in submission.live_tasks() for run in its_runs}
                said.append(f"sent {job_id} {array.name}: {array}")
                break
            room = None if room is None else room - len(array.jobs)
            if left := whole - len(array.jobs):
                said.append(f"{array.name}: {left} of {counted(whole, 'job')} left for a later launch: {why}")
    return sent, said


def _fitting(array: JobArray, room: int | None, jobs: Container[str]) -> JobArray:
    """What may be sent of an array now: as many jobs as there is room for, once all that it waits for have theirs."""
    if room is None:
        return array
    fits = room if all(parent in jobs for parent in array.parents) else 0
    return dataclasses.replace(array, jobs=array.jobs[: max(0, fits)])


@contextlib.contextmanager
def launch_lock(folder: Path) -> Iterator[None]:
    """Hold the lock that lets one launch at a time submit; `files.Busy` if another has it for too long."""
    with files.lock(folder / ".launch.lock", patience=LAUNCH_PATIENCE, what="another launch's submission"):
        yield


def repair(runs: Path, jobs: Sequence[QueuedJob]) -> list[str]:
    """Make submissions and queue agree after a launch was killed between two steps; returns what it did, in words."""
    said = []
    known = {submission.id: submission for submission in submissions.read_submissions(runs)}
    for name in {job.submission for job in jobs} | set(known):
        queued = [job for job in jobs if job.submission == name]
        array = queued[0].id.split("_")[0] if queued else ""
        submission = known.get(name)
        if submission is None:
            if array and all(job.reason == "JobHeldUser" for job in queued):
                ask("scancel", array)
                said.append(f"cancelled {array}: held, and no submission knows it")
        elif not submission.job and not submission.by_hand:
            # It was never released, whatever reason is shown: of a held array that depends on others it may be
            # `Dependency`. Jobs that have started were released by a person; cancelling others loses nothing.
            waiting = all(job.state == "PENDING" for job in queued)
            if array and not waiting:
                submission.note_job(array, released=True)
                continue
            if array:
                ask("scancel", array)
                said.append(f"cancelled {array}: held, and its launch was killed before it could note it")
            submission.remove()
        elif not submission.job and array:
            submission.note_job(array, released=True)
        elif submission.job and not submission.job["released"]:
            if array:
                _release(array, runs)
                said.append(f"released {array}, whose launch was killed before it could")
            submission.note_job(submission.job["id"], released=True)
    return said


def _release(array: str, runs: Path) -> None:
    """Release an array whose launch has not noted that it did.

    If it did (it was killed just then, or Slurm answered too late), tasks may have ended; of those scontrol complains,
    as long as the controller remembers them. So the queue decides whether any is held still.
    """
    try:
        ask("scontrol", "release", array)
    except ValueError:
        left = [job for job in queued_jobs(runs) if job.id.split("_")[0] == array]
        if any(job.reason in ("JobHeldUser", "Dependency") for job in left):  # a held one may be shown with either
            raise


def arrays_to_send(
    plan: Plan, live: Mapping[str, QueuedJob], *, limit: int, but: Container[str] = ()
) -> list[JobArray]:
    """The runs to send, as arrays: wanted, not done, not failed, without a job, and their parents done or in the queue.

    `live` are the runs that have a job in the queue, `but` runs to leave out; an array has at most `limit` tasks.
    """
    runs = plan.runs
    assign_milestones(runs.values(), taken=live)
    todo = {
        planned.run.id: planned
        for planned in plan.in_state(*TO_DO)
        if planned.run.id not in live
        and planned.run.id not in but
        and (planned.published_by is None or runs[planned.published_by].state != "running")
    }

    def can_go(planned: PlannedRun) -> bool:
        parent = planned.parent
        return parent is None or runs[parent].state == "done" or parent in live or parent in todo

    jobs = jobs_of(planned for planned in todo.values() if can_go(planned))
    jobs = side_by_side(jobs, plan.cluster.slurm.runs_per_job)
    waits_for = {name for name, planned in runs.items() if planned.state != "done"}
    return job_arrays(plan.grid, jobs, waits_for=waits_for, limit=limit, parallelism=plan.cluster.slurm.parallelism)


def cancel_jobs(runs: Path, jobs: Sequence[QueuedJob]) -> None:
    """Cancel jobs, and mark their submissions, so that a launch that waits for them does not submit them again."""
    names = {job.submission for job in jobs}
    for submission in submissions.read_submissions(runs):
        if submission.id in names:
            submission.note_cancelled()
    scancel(sorted(job.id for job in jobs))


def script(plan: Plan) -> str:
    """A shell script that sends what is to be sent with sbatch alone; it publishes the plan and its submissions.

    It keeps to the site's limits as `submit_missing` does; `ValueError` where one job alone exceeds one.
    """
    runs = Path(plan.cluster.runs)
    site = limits.read_limits(plan.cluster.slurm)
    if found := limits.too_large(site):
        raise ValueError("nothing is printed; first:\n  " + "\n  ".join(found))
    lines = ["#!/bin/bash", "set -euo pipefail"]
    with launch_lock(runs):
        live = queued_runs(runs, queued_jobs(runs))
        jobs = {run: job.id for run, job in live.items()}
        code = snapshot(runs)
        room, why = limits.room(site, plan.cluster.slurm.max_jobs)
        for number, whole in enumerate(arrays_to_send(plan, live, limit=max_array_size())):
            array = _fitting(whole, room, jobs)
            if left := len(whole.jobs) - len(array.jobs):
                said = f"{whole.name}: {left} of {counted(len(whole.jobs), 'job')} left for a later script: {why}"
                lines += ["", f"echo {shlex.quote(said)}"]
            if not array.jobs:
                continue
            room = None if room is None else room - len(array.jobs)
            publish(plan, [planned for job in array.jobs for planned in job.runs])
            submission = submissions.publish(runs, array, code, by_hand=True)
            text = submit.sbatch_text(submission, plan.cluster, code, parallelism=array.parallelism)
            after = "".join(f":{jobs[run]}" for run in sorted(array.parents))
            lines += [
                "",
                f"job{number}=$(sbatch --parsable {'--dependency=afterany' + after if after else ''} <<'END'",
                text,
                "END",
                ")",
                f"job{number}=${{job{number}%%;*}}  # with named clusters sbatch prints ID;CLUSTER",
                f'echo "sent $job{number} "{shlex.quote(f"{array.name}: {array}")}',
            ]
            suffix = "" if len(submission.tasks) == 1 else "_{}"
            for index, task in enumerate(submission.tasks):
                jobs |= {run: f"${{job{number}}}" + suffix.format(index) for run in task}
    return "\n".join(lines)
