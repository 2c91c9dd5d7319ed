"""Show the state of every run, of a grid or of all.

The run folders decide; on Slurm, the queue is read once as well.

python -m pipeline.status               every run in the runs folder
python -m pipeline.status --grid small --datasets brain_mri,isic
python -m pipeline.status --grid main --cluster rtx8000 --watch
python -m pipeline.status --grid main --parquet runs.parquet
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.cli import flags
from pipeline.core.console import answer, run_command

if TYPE_CHECKING:
    from pipeline.cli.status_text import Row
    from pipeline.jobs.slurm.scheduler import QueuedJob
    from pipeline.runs.cluster import Cluster

WATCH_SECONDS = 10.0


def parser() -> argparse.ArgumentParser:
    out = flags.described("status", __doc__, quiet=False, as_json="a row a run, as --parquet has them")
    flags.add_grid_flags(out, required=False)
    add = out.add_argument
    add(
        "--watch",
        action="store_true",
        help="show it again every ten seconds until all runs have ended, or nothing lives that could end them",
    )
    add("--failed", action="store_true", help="only failed runs, with the reason and the log")
    add("--parquet", type=Path, metavar="FILE", help="write a row a run too: spec, state, result (docs/operations.md)")
    return out


def main() -> int:
    args = flags.given(parser())
    from pipeline.cli.status_text import lives

    while True:
        runs, rows, text = read_status(args)
        if args.json:
            return 0
        if args.watch and sys.stdout.isatty():
            print("\x1b[2J\x1b[H", end="")
        print(text, flush=True)
        if not args.watch or not lives(rows, runs):
            return 0
        time.sleep(WATCH_SECONDS)


def read_status(args: argparse.Namespace) -> tuple[Path, list[Row], str]:
    """The runs folder, a row for each run and the text to show; with `--json` the rows are printed already."""
    from pipeline.cli.status_text import folder_rows, read_queue, status_rows, status_text

    if args.grid is None:
        from pipeline.runs.cluster import load_cluster

        cluster = load_cluster(args.cluster)
        runs = Path(cluster.runs)
        rows = folder_rows(runs, read_jobs(cluster))
        head: dict[str, str | None] = {"grid": None, "preset": None}
        if not rows:
            raise ValueError(f"there is no run in {runs}; give --cluster, or start runs with python -m pipeline.launch")
    else:
        plan = flags.read_plan(args)
        queue = read_queue(plan)
        runs = Path(plan.cluster.runs)
        rows = status_rows(plan, queue)
        head = {"grid": plan.grid, "preset": plan.preset.name}
        if queue is not None and queue.problem:
            print(f"the queue could not be read: {queue.problem}", file=sys.stderr)
    if args.parquet:
        from pipeline.cli.registry import write_registry

        write_registry(args.parquet, rows, {} if args.grid is None else plan.runs, runs)
    if args.json:
        answer({**head, "runs": rows})
        return runs, rows, ""
    text = status_text(rows, runs, failed_only=args.failed)
    if args.grid is not None and not args.failed:
        from pipeline.cli.estimate_text import hours_lines
        from pipeline.jobs.estimate import estimate

        text = "\n".join([text, *hours_lines(estimate(plan, plan.cluster))])
    return runs, rows, text


def read_jobs(cluster: Cluster) -> dict[str, QueuedJob]:
    """The jobs in the queue by run id; none on this machine alone, and where the queue does not answer."""
    if cluster.executor != "slurm":
        return {}
    from pipeline.jobs.slurm import queue, scheduler

    try:
        return queue.queued_runs(Path(cluster.runs), scheduler.queued_jobs(Path(cluster.runs)))
    except ValueError as error:
        print(f"the queue could not be read: {error}", file=sys.stderr)
        return {}


if __name__ == "__main__":
    run_command(main)
