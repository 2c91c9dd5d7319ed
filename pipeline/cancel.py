"""Cancel a grid's jobs on Slurm; running ones save first.

A later launch continues from there.

python -m pipeline.cancel --grid main --datasets isic --cluster rtx8000
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from pipeline.cli import flags
from pipeline.core.console import run_command, table


def parser() -> argparse.ArgumentParser:
    out = argparse.ArgumentParser(prog="python -m pipeline.cancel", description=__doc__, allow_abbrev=False)
    out.formatter_class = argparse.RawDescriptionHelpFormatter
    flags.add_grid_flags(out)
    out.add_argument("--yes", action="store_true", help="do not ask")
    return out


def main() -> int:
    args = parser().parse_args()
    plan = flags.read_plan(args)
    if plan.cluster.executor != "slurm":
        raise ValueError("there is no queue on this machine: press Ctrl-C in launch, or send its process SIGTERM")
    from pipeline.jobs import submissions
    from pipeline.jobs.slurm import reconcile, scheduler

    runs = Path(plan.cluster.runs)
    carried = reconcile.carried(runs, scheduler.queued_jobs(runs))
    chosen = {carried[name].id: carried[name] for name in plan.runs if name in carried}
    if not chosen:
        print("no job in the queue carries a run of this grid")
        return 0
    carries = {job: sorted(run for run in carried if carried[run].id == job) for job in chosen}
    others = {run for found in carries.values() for run in found} - set(plan.runs)
    rows = [[job, chosen[job].state.lower(), len(carries[job]), carries[job][0]] for job in sorted(chosen)]
    print(table(rows, header=("job", "state", "runs", "the first")))
    if others:
        print(f"with them end {len(others)} runs that you did not name, such as {min(others)}")
    if not args.yes and not confirmed(f"cancel these {len(chosen)} jobs? [y/N] "):
        print("nothing was cancelled")
        return 1
    tokens = {job.token for job in chosen.values()}
    for submission in submissions.read_submissions(runs):
        if submission.token in tokens:  # a launch that waits for it must not send it again
            (submission.folder / "cancelled").touch()
    scheduler.cancel(sorted(chosen))
    print(f"cancelled {len(chosen)} jobs; to go on: python -m pipeline.launch {flags.grid_flags(args)}")
    return 0


def confirmed(question: str) -> bool:
    if not sys.stdin.isatty():
        raise ValueError("there is nobody to ask; add --yes to cancel without asking")
    return input(question).strip().lower() in ("y", "yes")


if __name__ == "__main__":
    run_command(main)
