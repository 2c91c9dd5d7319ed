"""Run what is missing of a grid, on this machine or on Slurm.

Run the same command again to continue.

python -m pipeline.launch --grid demo
python -m pipeline.launch --grid small --datasets brain_mri,isic --seeds 1 --jobs 2
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.cli import flags
from pipeline.core.console import answer, complain, hand_over, run_command

if TYPE_CHECKING:
    from pipeline.jobs.plan import Plan
    from pipeline.runs.cluster import Cluster


def parser() -> argparse.ArgumentParser:
    out = flags.described("launch", __doc__, as_json="states of runs; with --dry-run tables, hours, what is not met")
    flags.add_grid_flags(out)
    add = out.add_argument
    add(
        "--jobs",
        type=int,
        help="jobs at the same time (default: the cluster file's; else one a GPU, else one); on Slurm, tasks an array",
    )
    add(
        "--dry-run",
        action="store_true",
        help="print the plan and what the site lacks, change nothing; exit code 3 if it lacks anything",
    )
    add(
        "--retry",
        action="store_true",
        help="start failed runs again, from their last checkpoints, and make damaged ones again",
    )
    add("--no-ray", action="store_true", help="run fine-tunes in plain worker processes, without Ray")
    add(
        "--print-sbatch",
        action="store_true",
        help="print a shell script that sends the jobs, for you to run; no submitit",
    )
    wait = out.add_mutually_exclusive_group()
    wait.add_argument("--wait", action="store_true", help="stay until all runs have ended (default on this machine)")
    wait.add_argument("--no-wait", action="store_true", help="leave at once, the runs continue (default on Slurm)")
    return out


def main() -> int:
    args = flags.given(parser())
    from pipeline.jobs import preflight
    from pipeline.jobs.plan import TO_DO, missing_labels, retry_failed

    plan = flags.read_plan(args)
    plan.cluster = chosen_cluster(plan.cluster, args)
    if args.print_sbatch:
        return print_sbatch(plan)
    print_plan(plan)
    if args.dry_run:
        return dry_run(plan)
    if found := preflight.problems(plan.cluster, plan):
        raise ValueError("nothing was started; first:\n  " + "\n  ".join(found))
    for line in missing_labels(plan):
        complain(f"not met: {line}")
    if args.retry:
        retry_failed(plan)
    if not plan.in_state(*TO_DO, "running"):
        waiting = [state for state in ("failed", "damaged") if plan.in_state(state)]
        print("nothing to start" + (f"; {' and '.join(waiting)} runs wait for --retry" if waiting else ""))
        return print_end(plan, flags.grid_flags(args))
    if plan.cluster.executor == "slurm" and not args.wait:
        return submit(plan, flags.grid_flags(args))
    if args.no_wait:
        return start_in_background(Path(plan.cluster.runs))
    return run_to_end(plan, flags.grid_flags(args))


def chosen_cluster(cluster: Cluster, args: argparse.Namespace) -> Cluster:
    """The cluster file's facts, changed as the flags say."""
    if args.no_ray:
        cluster = dataclasses.replace(cluster, ray=False)
    if args.jobs is not None:
        if args.jobs < 1:
            raise ValueError(f"--jobs is {args.jobs}; give 1 or more")
        slurm = dataclasses.replace(cluster.slurm, parallelism=args.jobs)
        cluster = dataclasses.replace(cluster, jobs=args.jobs, slurm=slurm)
    return cluster


def print_plan(plan: Plan) -> None:
    """Print how many runs are in which state."""
    from pipeline.cli.plan_text import plan_text

    print(plan_text(plan), flush=True)


def dry_run(plan: Plan) -> int:
    """Print what would be submitted, what it would take and what is missing; 3 if something is."""
    from pipeline.cli.estimate_text import estimate_facts, estimate_lines
    from pipeline.cli.memory_text import memory_text
    from pipeline.cli.plan_text import arrays_text, milestones_text, plan_facts, tables_text
    from pipeline.jobs import footprints, memory, preflight
    from pipeline.jobs.estimate import estimate
    from pipeline.jobs.plan import missing_labels

    uncounted = footprints.count_missing(memory.to_count(plan, plan.cluster))
    texts = [tables_text(plan), arrays_text(plan) if plan.cluster.executor == "slurm" else "", milestones_text(plan)]
    texts += [memory_text(plan), "".join(f"{line}\n" for line in uncounted)]
    for text in filter(None, texts):
        print(text)
    expected = estimate(plan, plan.cluster)
    print("\n".join(estimate_lines(expected)))
    found = preflight.problems(plan.cluster, plan) + missing_labels(plan)
    if found:
        print()
        complain("not met:\n  " + "\n  ".join(found))
    answer({**plan_facts(plan), "estimate": estimate_facts(expected), "not_met": found})
    return 3 if found else 0


def print_sbatch(plan: Plan) -> int:
    """Publish the plan and print the script that submits it."""
    from pipeline.jobs.slurm import sending

    if plan.cluster.executor != "slurm":
        raise ValueError('--print-sbatch needs a cluster file with executor = "slurm"; give --cluster')
    script = sending.script(plan)
    answer({"script": script})
    hand_over(f"{script}\n")
    return 0


def submit(plan: Plan, hint: str) -> int:
    """Submit what is to be submitted to Slurm, and leave."""
    from pipeline.cli.plan_text import plan_facts
    from pipeline.jobs.slurm import sending

    _, said = sending.submit_missing(plan)
    print("\n".join(said) if said else "nothing to send: every run to do has a job in the queue")
    print(f"their states: python -m pipeline.status {hint}")
    answer({**plan_facts(plan), "sent": said})
    return 0


def start_in_background(runs: Path) -> int:
    """Start the same launch in a session of its own, with its output in a log file."""
    import subprocess

    runs.mkdir(parents=True, exist_ok=True)
    path = runs / f"launch-{time.strftime('%Y%m%d-%H%M%S')}.log"
    arguments = [argument for argument in sys.argv[1:] if argument not in ("--no-wait", "--json", "--quiet")]
    with open(path, "ab") as log:
        command = [sys.executable, "-m", "pipeline.launch", *arguments]
        process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True)
    print(f"running as process {process.pid}; log: {path}")
    answer({"process": process.pid, "log": path})
    return 0


def run_to_end(plan: Plan, hint: str) -> int:
    """Run or watch the plan until all runs have ended; 130 if the user asked to stop before."""
    from pipeline.cli.progress import LaunchProgress
    from pipeline.jobs.submissions import launch_lives

    progress = LaunchProgress()
    with launch_lives(Path(plan.cluster.runs)):
        if plan.cluster.executor == "slurm":
            from pipeline.jobs.slurm import waiting

            completed = waiting.run_plan(plan, progress)
            farewell = "no longer watching; the jobs continue. The same command watches again."
        else:
            from pipeline.jobs import local

            completed = local.run_plan(plan, progress)
            farewell = "stopped; every run saved its state. The same command continues."
    progress.close()
    if not completed:
        print(farewell, file=sys.stderr)
        return 130
    return print_end(plan, hint)


def print_end(plan: Plan, hint: str) -> int:
    """Print which runs are not done; 0 if all are, else 1."""
    from pipeline.cli.plan_text import end_text, plan_facts

    finished = len(plan.in_state("done")) == len(plan.runs)
    tell = print if finished else complain
    tell(end_text(plan))
    print(f"the table: python -m pipeline.report {hint}")
    answer(plan_facts(plan))
    return 0 if finished else 1


if __name__ == "__main__":
    run_command(main)
