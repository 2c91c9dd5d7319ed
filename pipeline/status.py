"""Show the state of every run of a grid.

The run folders decide; on Slurm, the queue is read once as well.

python -m pipeline.status --grid small --datasets brain_mri,isic
python -m pipeline.status --grid main --cluster rtx8000 --watch
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from typing import TYPE_CHECKING

from pipeline.cli import flags
from pipeline.core.console import run_command

if TYPE_CHECKING:
    from pipeline.jobs.plan import Plan
    from pipeline.jobs.slurm.queue import QueueView

WATCH_SECONDS = 10.0


def parser() -> argparse.ArgumentParser:
    out = argparse.ArgumentParser(prog="python -m pipeline.status", description=__doc__, allow_abbrev=False)
    out.formatter_class = argparse.RawDescriptionHelpFormatter
    flags.add_grid_flags(out)
    add = out.add_argument
    add("--watch", action="store_true", help="show it again every ten seconds until no run is at work")
    add("--failed", action="store_true", help="only failed runs, with the reason and the log")
    add("--json", action="store_true", help="one JSON object, for programs")
    return out


def main() -> int:
    args = parser().parse_args()
    from pipeline.cli.estimate_text import hours_lines
    from pipeline.cli.status_text import status_rows, status_text
    from pipeline.jobs.estimate import estimate

    while True:
        plan = flags.read_plan(args)
        queue = read_queue(plan)
        rows = status_rows(plan, queue)
        if args.json:
            print(json.dumps({"grid": plan.grid, "preset": plan.preset.name, "runs": rows}, indent=2))
            return 0
        text = status_text(rows, plan, failed_only=args.failed)
        if not args.failed:
            text = "\n".join([text, *hours_lines(estimate(plan, plan.cluster))])
        if args.watch and sys.stdout.isatty():
            print("\x1b[2J\x1b[H", end="")
        print(text, flush=True)
        if queue is not None and queue.problem:
            print(f"the queue could not be read: {queue.problem}", file=sys.stderr)
        if not args.watch or not any(row["state"] in ("running", "queued") for row in rows):
            return 0
        time.sleep(WATCH_SECONDS)


def read_queue(plan: Plan) -> QueueView | None:
    """What Slurm shows of the plan's runs; None on this machine alone."""
    if plan.cluster.executor != "slurm":
        return None
    from pipeline.jobs.slurm import queue

    return queue.read_queue(plan)


if __name__ == "__main__":
    run_command(main)
