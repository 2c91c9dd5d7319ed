"""Show what a run printed, and where its job's output is.

python -m pipeline.logs RUN              RUN: an id, or any part of it that only one run has
python -m pipeline.logs RUN --follow
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.cli import flags
from pipeline.core.console import run_command

if TYPE_CHECKING:
    from pipeline.runs.folder import Run

POLL_SECONDS = 1.0


def parser() -> argparse.ArgumentParser:
    out = flags.described("logs", __doc__, quiet=False)
    add = out.add_argument
    add("run", metavar="RUN", help="a run's id, or any part of it that only one run has")
    add("--follow", action="store_true", help="continue to print until the run has ended")
    add("--job", action="store_true", help="the output of the jobs that trained it: starts, signals, what Slurm said")
    flags.add_cluster_flag(out)
    return out


def main() -> int:
    args = flags.given(parser())
    from pipeline.runs.cluster import load_cluster
    from pipeline.runs.folder import find_run

    runs = Path(load_cluster(args.cluster).runs)
    run = find_run(runs, args.run)
    if args.job:
        print_job_logs(runs, run.id)
        return 0
    if not run["log"].exists():
        print(f"{run.id} is {run.state()} and has printed nothing yet", file=sys.stderr)
        print_job_logs(runs, run.id)
        if not args.follow:
            return 0
    print_log(run, follow=args.follow)
    return 0


def print_log(run: Run, *, follow: bool) -> None:
    """Print the run's log; with `follow`, until the run has ended."""
    position = 0
    while True:
        ended = run.state() != "running"
        if run["log"].exists():
            with open(run["log"], encoding="utf-8", errors="replace") as file:
                file.seek(position)
                print(file.read(), end="", flush=True)
                position = file.tell()
        if not follow or ended:
            return
        time.sleep(POLL_SECONDS)


def print_job_logs(runs: Path, run_id: str) -> None:
    """Print the output of every job that trained the run, oldest first, each file under its path."""
    from pipeline.jobs.submissions import job_logs

    for path in job_logs(runs, run_id):
        print(f"--- {path}")
        print(path.read_text(encoding="utf-8", errors="replace"), end="", flush=True)


if __name__ == "__main__":
    run_command(main)
