"""Cancel a grid's jobs on Slurm; running ones save first.

A later launch continues from there.

python -m pipeline.cancel --grid main --datasets isic --cluster rtx8000
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from pipeline.cli import flags
from pipeline.core.console import answer, counted, run_command, table


def parser() -> argparse.ArgumentParser:
    out = flags.described("cancel", __doc__, as_json="the jobs and their runs")
    flags.add_grid_flags(out)
    out.add_argument("--yes", action="store_true", help="do not ask")
    return out


def main() -> int:
    args = flags.given(parser())
    plan = flags.read_plan(args)
    if plan.cluster.executor != "slurm":
        raise ValueError("there is no queue on this machine: press Ctrl-C in launch, or send its process SIGTERM")
    from pipeline.jobs.slurm import queue, reconcile, scheduler

    runs = Path(plan.cluster.runs)
    queued = queue.queued_runs(runs, scheduler.queued_jobs(runs))
    jobs = {queued[name].id: queued[name] for name in plan.runs if name in queued}
    if not jobs:
        print("no job in the queue has a run of this grid")
        answer({"jobs": [], "cancelled": False})
        return 0
    runs_of = {job: sorted(run for run in queued if queued[run].id == job) for job in jobs}
    others = {run for found in runs_of.values() for run in found} - set(plan.runs)
    rows = [[job, jobs[job].state.lower(), len(runs_of[job]), runs_of[job][0]] for job in sorted(jobs)]
    print(table(rows, header=("job", "state", "runs", "the first")))
    told = [{"job": job, "state": jobs[job].state.lower(), "runs": runs_of[job]} for job in sorted(jobs)]
    if others:
        print(f"these jobs also have {counted(len(others), 'run')} that you did not name, such as {min(others)}")
    if not args.yes and not confirmed(f"cancel {counted(len(jobs), 'job')}? [y/N] "):
        print("nothing was cancelled")
        answer({"jobs": told, "cancelled": False})
        return 1
    reconcile.cancel_jobs(runs, list(jobs.values()))
    answer({"jobs": told, "cancelled": True})
    print(f"cancelled {counted(len(jobs), 'job')}; to continue: python -m pipeline.launch {flags.grid_flags(args)}")
    return 0


def confirmed(question: str) -> bool:
    """What the user answers; `ValueError` if there is no terminal."""
    if not sys.stdin.isatty():
        raise ValueError("there is nobody to ask; add --yes to cancel without asking")
    return input(question).strip().lower() in ("y", "yes")


if __name__ == "__main__":
    run_command(main)
