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
from typing import TYPE_CHECKING, Any

from pipeline.cli import flags
from pipeline.core.console import duration, run_command, table

if TYPE_CHECKING:
    from pipeline.jobs.plan import Plan, PlannedRun
    from pipeline.jobs.slurm.reconcile import Seen

WATCH_SECONDS = 10.0
SILENT_SECONDS = 120.0  # without a sign of life, after which a run that holds its lock is called silent


def parser() -> argparse.ArgumentParser:
    out = argparse.ArgumentParser(prog="python -m pipeline.status", description=__doc__, allow_abbrev=False)
    out.formatter_class = argparse.RawDescriptionHelpFormatter
    flags.add_grid_flags(out)
    add = out.add_argument
    add("--watch", action="store_true", help="look again every ten seconds until nothing is at work")
    add("--failed", action="store_true", help="only what failed, with the reason and the log")
    add("--json", action="store_true", help="one JSON object, for programs")
    return out


def main() -> int:
    args = parser().parse_args()
    from pipeline.jobs import estimate

    while True:
        plan = flags.read_plan(args)
        seen = look(plan)
        rows = [described(item, plan, seen) for item in plan.runs.values()]
        if args.json:
            print(json.dumps({"grid": plan.grid, "preset": plan.preset.name, "runs": rows}, indent=2))
            return 0
        text = as_text(rows, plan, failed_only=args.failed)
        if not args.failed:
            text = "\n".join([text, *estimate.hours_lines(estimate.estimate(plan, plan.cluster))])
        if args.watch and sys.stdout.isatty():
            print("\x1b[2J\x1b[H", end="")
        print(text, flush=True)
        if seen is not None and seen.problem:
            print(f"the queue could not be read: {seen.problem}", file=sys.stderr)
        if not args.watch or not any(row["state"] in ("running", "queued") for row in rows):
            return 0
        time.sleep(WATCH_SECONDS)


def look(plan: Plan) -> Seen | None:
    """What Slurm shows of the plan's runs; None on this machine alone."""
    if plan.cluster.executor != "slurm":
        return None
    from pipeline.jobs.slurm import reconcile

    return reconcile.look(plan)


def as_text(rows: list[dict[str, Any]], plan: Plan, *, failed_only: bool) -> str:
    """The table, and a line that counts the states."""
    if failed_only:
        failed = [row for row in rows if row["state"] == "failed"]
        shown = [[row["run"], row["says"], plan.runs[row["run"]].run["log"]] for row in failed]
        out = [table(shown, header=("run", "reason", "log"))] if shown else []
    else:
        shown = [[row["state"], row["run"], row["job"], row["says"]] for row in rows]
        out = [table(shown, header=("state", "run", "job", ""))]
    counts: dict[str, int] = {}
    for row in rows:
        counts[row["state"]] = counts.get(row["state"], 0) + 1
    out.append(("\n" if out else "") + ", ".join(f"{count} {state}" for state, count in counts.items()))
    codes = sorted({code for row in rows for code in row.get("codes", ())})
    if len(codes) > 1:
        out.append(f"results come from {len(codes)} versions of the code: {', '.join(codes)}")
    return "\n".join(out)


def described(item: PlannedRun, plan: Plan, seen: Seen | None) -> dict[str, Any]:
    """A run's state with what there is to say of it; `queued` is a run that waits and that a job carries."""
    job = seen.jobs.get(item.run.id) if seen else None
    row: dict[str, Any] = {"run": item.run.id, "state": item.state, "job": job.id if job else "", "says": ""}
    if item.state == "done":
        result = item.run.result()
        speed = f"{result.images_per_second:.0f} images a second"
        collapsed = result.notes.get("collapsed")
        row |= {
            "job": "",
            "codes": [start["code"] for start in result.notes["starts"]],
            "seconds": result.seconds,
            "device": result.device,
        }
        row["says"] = f"{duration(result.seconds)}, {speed}" + (f", COLLAPSED: {collapsed}" if collapsed else "")
        row["says"] += f", carried by {by}" if (by := result.notes.get("carried_by")) else ""
    elif item.state == "running":
        at = item.run.progress()
        row["progress"] = at
        row["silence"] = silence = item.run.silence()
        left = duration(at["eta_seconds"]) if at.get("eta_seconds") else "?"
        row["says"] = f"epoch {at['epoch'] + 1} of {at['epochs']}, {left} left at most" if at else "starting"
        if at:
            row["says"] += f"; last step {duration(at['age'])} ago"
        if silence > SILENT_SECONDS:
            row["says"] += f"; NO SIGN OF LIFE for {duration(silence)}: its node is lost or hangs"
    elif item.state == "failed":
        row["job"] = ""
        row["says"] = item.run.reason()
    elif job:
        row["state"] = "queued"
        row["says"] = job.state.lower() + (f" ({job.reason})" if job.reason not in ("None", "") else "")
        row["says"] += f" on {job.node}" if job.node else ""
        if seen and item.published_by and seen.jobs.get(item.published_by) == job:
            row["says"] += f", carried by {item.published_by}"
    elif item.published_by:
        row["says"] = f"carried by {item.published_by}, which is {plan.runs[item.published_by].state}"
    elif item.parent and plan.runs[item.parent].state != "done":
        row["says"] = f"waits for {item.parent}, which is {plan.runs[item.parent].state}"
    elif seen and item.run.id in seen.ended:
        row["job"], how = seen.ended[item.run.id]
        row["says"] = f"its job ended: {how}; launch goes on"
    return row


if __name__ == "__main__":
    run_command(main)
