"""What of a plan is sent to Slurm now, as arrays, each exactly once: by this launch, or by a script that a person runs.

The queue says what is live; the run folders say what is done. (reconcile.py says what a killed launch leaves)
"""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Container, Mapping, Sequence
from pathlib import Path

from pipeline.core.console import counted
from pipeline.jobs import submissions
from pipeline.jobs.arrays import JobArray, job_arrays, jobs_of, side_by_side
from pipeline.jobs.plan import TO_DO, Plan, PlannedRun, assign_milestones, publish
from pipeline.jobs.slurm import limits, submit
from pipeline.jobs.slurm.limits import Limit
from pipeline.jobs.slurm.queue import queued_runs
from pipeline.jobs.slurm.reconcile import launch_lock, repair
from pipeline.jobs.slurm.scheduler import QueuedJob, max_array_size, queued_jobs
from pipeline.jobs.snapshot import snapshot
from pipeline.jobs.submissions import Submission


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
        for whole in arrays:
            array = _fitting(whole, room, jobs)
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
            said += _left(whole, array, "launch", why)
    return sent, said


def _fitting(array: JobArray, room: int | None, jobs: Container[str]) -> JobArray:
    """What may be sent of an array now: as many jobs as there is room for, once all that it waits for have theirs."""
    if room is None:
        return array
    fits = room if all(parent in jobs for parent in array.parents) else 0
    return dataclasses.replace(array, jobs=array.jobs[: max(0, fits)])


def _left(whole: JobArray, array: JobArray, what: str, why: str) -> list[str]:
    """What of an array a later launch or script sends, in words."""
    left = len(whole.jobs) - len(array.jobs)
    return [f"{whole.name}: {left} of {counted(len(whole.jobs), 'job')} left for a later {what}: {why}"] if left else []


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
            for said in _left(whole, array, "script", why):
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
