"""Show what a run printed, and where its job's output is.

python -m pipeline.logs RUN              RUN: an id, or any part of one that no other has
python -m pipeline.logs RUN --follow
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from pipeline.cli import flags
from pipeline.core.console import run_command


def parser() -> argparse.ArgumentParser:
    out = argparse.ArgumentParser(prog="python -m pipeline.logs", description=__doc__, allow_abbrev=False)
    out.formatter_class = argparse.RawDescriptionHelpFormatter
    add = out.add_argument
    add("run", metavar="RUN", help="a run's id, or any part of it that names one run")
    add("--follow", action="store_true", help="go on printing until the run has ended")
    add("--job", action="store_true", help="the output of the jobs that carried it: starts, signals, what Slurm said")
    flags.add_cluster_flag(out)
    return out


def main() -> int:
    args = parser().parse_args()
    from pipeline.runs.cluster import load_cluster
    from pipeline.runs.folder import find_run

    runs = Path(load_cluster(args.cluster).runs)
    run = find_run(runs, args.run)
    if args.job:
        return print_job_logs(runs, run.id)
    if not run["log"].exists():
        print(f"{run.id} is {run.state()} and has printed nothing yet", file=sys.stderr)
        print_job_logs(runs, run.id)
        if not args.follow:
            return 0
    position = 0
    while True:
        ended = run.state() != "running"
        if run["log"].exists():
            with open(run["log"], encoding="utf-8", errors="replace") as file:
                file.seek(position)
                print(file.read(), end="", flush=True)
                position = file.tell()
        if not args.follow or ended:
            return 0
        time.sleep(1)


def print_job_logs(runs: Path, run_id: str) -> int:
    """The output of every job that carried the run, oldest first."""
    from pipeline.jobs import submissions

    for submission in submissions.read_submissions(runs):
        for index in [index for index, part in enumerate(submission.tasks) if run_id in part]:
            jobs = [task for task, _ in submission.live_tasks()]
            paths = sorted((submission.folder / "submitit").glob(f"{jobs[index]}_0_log.*" if jobs else "*_log.*"))
            paths += [submission.folder / str(index) / "log.txt"] if submission.fan_out else []
            for path in paths:
                if path.exists():
                    print(f"--- {path}")
                    print(path.read_text(encoding="utf-8", errors="replace"), end="", flush=True)
    return 0


if __name__ == "__main__":
    run_command(main)
