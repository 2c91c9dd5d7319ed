"""Show runs in MLflow, Weights & Biases or Trackio.

They are read from the run folders; training knows nothing of it. Run it wherever the folders and the tracker can be
reached, such as on a login node, as often as you like: a run is one run of the tracker for ever, and what it holds
already is not sent again.

python -m pipeline.track --grid main --cluster mysite --to mlflow --uri http://tracker:5000 --follow
python -m pipeline.track --grid main --to wandb          offline; then wandb sync
python -m pipeline.track --grid main --to trackio        in its own environment; then trackio show
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.cli import flags
from pipeline.core.console import counted, run_command

if TYPE_CHECKING:
    from pipeline.jobs.plan import Plan
    from pipeline.trackers.record import Record, Tracker

TRACKERS = ("mlflow", "wandb", "trackio")
FOLDER = Path("reports")  # of the trackers that are a folder
FOLLOW_SECONDS = 60.0
PATIENCE = 600.0  # seconds for another track to end
WORDS = {"new": "new", "more": "continued", "again": "told again", "removed": "deleted there", "": "as they were"}


def parser() -> argparse.ArgumentParser:
    out = flags.described("track", __doc__)
    flags.add_grid_flags(out)
    add = out.add_argument
    add("--to", required=True, choices=TRACKERS, help="the tracker")
    add(
        "--uri",
        help="mlflow: the server (default: MLFLOW_TRACKING_URI); "
        f"wandb, trackio: the folder of their runs (default: {FOLDER}/wandb, {FOLDER}/trackio)",
    )
    add("--project", default="cass-pipeline", help="experiment (mlflow) or project (default: %(default)s)")
    add(
        "--follow",
        action="store_true",
        help="again every minute until all runs have ended, or nothing lives that could end them",
    )
    return out


def main() -> int:
    args = flags.given(parser())
    from pipeline.cli.status_text import lives, read_queue, status_rows

    begun = False
    while True:
        try:
            plan = flags.read_plan(args)
            rows = status_rows(plan, read_queue(plan)) if args.follow else []  # first: what has ended by now is told
            code, begun = send_all(plan, args), True
            if not args.follow or not lives(rows, Path(plan.cluster.runs)):
                return code
        except (ValueError, OSError) as error:
            if not (args.follow and begun):  # what is wrong from the start stays wrong: a tracker that is not installed
                raise
            print(f"trying again soon: {error}", file=sys.stderr, flush=True)
        time.sleep(FOLLOW_SECONDS)


def send_all(plan: Plan, args: argparse.Namespace) -> int:
    """Send the plan's runs that have started, and its report; 1 if a folder could not be read, or one was refused."""
    from pipeline.core import files
    from pipeline.trackers.record import STARTED, report_record, run_record

    done: Counter[str] = Counter()
    bad = 0
    with files.lock(Path(plan.cluster.runs) / ".track.lock", patience=PATIENCE, what="another track of these runs"):
        tracker = open_tracker(args)
        for planned in plan.in_state(*STARTED):
            try:
                record = run_record(planned.run, planned.spec, planned.state, plan.grid)
            except (ValueError, OSError) as error:
                print(f"{planned.name}: not told: {error}", file=sys.stderr)
                bad += 1
                continue
            bad += not _told(tracker, planned.name, record, done)
        if report := report_record(plan.grid, plan.report_folder):
            bad += not _told(tracker, "the report", report, done)
    told = ", ".join(f"{done[key]} {word}" for key, word in WORDS.items() if done[key])
    told = told or ("nothing was told" if bad else "nothing has started")
    waiting = len(plan.runs) - len(plan.in_state(*STARTED))
    print(f"{told}" + (f"; {counted(waiting, 'run has', 'runs have')} not started" if waiting else ""), flush=True)
    if args.to == "wandb" and done["new"] + done["more"]:
        print(f"upload them: wandb sync {shlex.quote(str(_folder(args)))}/*/wandb/offline-run-*", flush=True)
    if args.to == "trackio" and done["new"] + done["more"]:
        folder, project = shlex.quote(str(_folder(args).resolve())), shlex.quote(args.project)
        print(f"see them: TRACKIO_DIR={folder} trackio show --project {project}", flush=True)
    return 1 if bad else 0


def _told(tracker: Tracker, name: str, record: Record, done: Counter[str]) -> bool:
    """Send one record and count what was done; False where the tracker does not take it: others may be taken."""
    from pipeline.trackers.record import Refused

    try:
        done[tracker.send(record)] += 1
    except Refused as error:
        print(f"{name}: {error}", file=sys.stderr, flush=True)
        return False
    return True


def open_tracker(args: argparse.Namespace) -> Tracker:
    """The tracker that the flags name; raises `ValueError` where it does not answer."""
    if args.to == "wandb":
        from pipeline.trackers.to_wandb import Wandb

        return Wandb(_folder(args), args.project)
    if args.to == "trackio":
        from pipeline.trackers.to_trackio import Trackio

        return Trackio(_folder(args), args.project)
    uri = args.uri or os.environ.get("MLFLOW_TRACKING_URI", "")
    if not uri:
        raise ValueError("no MLflow server is named; give --uri http://HOST:PORT, or set MLFLOW_TRACKING_URI")
    from pipeline.trackers.to_mlflow import Mlflow

    return Mlflow(uri, args.project)


def _folder(args: argparse.Namespace) -> Path:
    return Path(args.uri or FOLDER / args.to)


if __name__ == "__main__":
    run_command(main)
