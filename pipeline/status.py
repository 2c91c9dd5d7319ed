"""Door: where every run of a grid stands, read from the run folders alone.

python -m pipeline.status --grid small --datasets brain_mri,isic
"""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

from pipeline import flags
from pipeline.console import duration, run_door, table

if TYPE_CHECKING:
    from pipeline.jobs.plan import Item, Plan


def parser() -> argparse.ArgumentParser:
    out = argparse.ArgumentParser(prog="python -m pipeline.status", description=__doc__, allow_abbrev=False)
    out.formatter_class = argparse.RawDescriptionHelpFormatter
    flags.add_grid_flags(out)
    out.add_argument("--json", action="store_true", help="one JSON object, for programs")
    return out


def main() -> int:
    args = parser().parse_args()
    plan = flags.read_plan(args)
    rows = [described(item, plan) for item in plan.items.values()]
    if args.json:
        print(json.dumps({"grid": plan.grid, "preset": plan.preset.name, "runs": rows}, indent=2))
        return 0
    print(table([[row["state"], row["run"], row["says"]] for row in rows], header=("state", "run", "")))
    counts: dict[str, int] = {}
    for row in rows:
        counts[row["state"]] = counts.get(row["state"], 0) + 1
    print("\n" + ", ".join(f"{count} {state}" for state, count in counts.items()))
    codes = sorted({code for row in rows for code in row.get("codes", ())})
    if len(codes) > 1:
        print(f"results come from {len(codes)} versions of the code: {', '.join(codes)}")
    return 0


def described(item: Item, plan: Plan) -> dict[str, Any]:
    """A run's state with what there is to say of it."""
    row: dict[str, Any] = {"run": item.run.id, "state": item.state, "says": ""}
    if item.state == "done":
        result = item.run.result()
        speed = f"{result.images_per_second:.0f} images a second"
        collapsed = result.notes.get("collapsed")
        row |= {
            "codes": [start["code"] for start in result.notes["starts"]],
            "seconds": result.seconds,
            "device": result.device,
        }
        row["says"] = f"{duration(result.seconds)}, {speed}" + (f", COLLAPSED: {collapsed}" if collapsed else "")
    elif item.state == "running":
        at = item.run.progress()
        row["progress"] = at
        if at:
            left = duration(at["eta_seconds"]) if at["eta_seconds"] else "?"
            row["says"] = f"epoch {at['epoch'] + 1} of {at['epochs']}, {left} left at most; seen {at['age']:.0f} s ago"
        else:
            row["says"] = "starting"
    elif item.state == "failed":
        row["says"] = item.run.reason()
    elif item.parent and plan.items[item.parent].state != "done":
        row["says"] = f"waits for {item.parent}, which is {plan.items[item.parent].state}"
    return row


if __name__ == "__main__":
    run_door(main)
