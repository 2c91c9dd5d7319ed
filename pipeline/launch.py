"""Run what is missing of a grid, on this machine or on Slurm.

Run the same command again to continue.

python -m pipeline.launch --grid demo
python -m pipeline.launch --grid small --datasets brain_mri,isic --seeds 1 --jobs 2
"""

from __future__ import annotations

import argparse
import dataclasses
import shutil
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.cli import flags
from pipeline.core.console import duration, run_command, table

if TYPE_CHECKING:
    from pipeline.jobs.plan import Plan, PlannedRun
    from pipeline.runs.cluster import Cluster

LINE_SECONDS = 30.0  # between looks printed into a log


def parser() -> argparse.ArgumentParser:
    out = argparse.ArgumentParser(prog="python -m pipeline.launch", description=__doc__, allow_abbrev=False)
    out.formatter_class = argparse.RawDescriptionHelpFormatter
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
        help="print the plan and what the site lacks, change nothing; 3 if it lacks any",
    )
    add("--retry", action="store_true", help="start failed runs again, from their last checkpoints")
    add("--no-ray", action="store_true", help="fine-tunes run in plain worker processes, without Ray")
    add(
        "--print-sbatch",
        action="store_true",
        help="print a shell script that sends the jobs, for you to run; no submitit",
    )
    wait = out.add_mutually_exclusive_group()
    wait.add_argument("--wait", action="store_true", help="stay until all runs have ended (default on this machine)")
    wait.add_argument("--no-wait", action="store_true", help="leave at once, the runs go on (default on Slurm)")
    return out


def main() -> int:
    args = parser().parse_args()
    from pipeline.jobs import plan as plans
    from pipeline.jobs import preflight

    plan = flags.read_plan(args)
    plan.cluster = chosen_cluster(plan.cluster, args)
    on_slurm = plan.cluster.executor == "slurm"
    if args.print_sbatch:
        return print_sbatch(plan)
    print_plan(plan)
    if args.dry_run:
        return dry_run(plan)

    if lacking := preflight.unmet(plan.cluster, plan):
        raise ValueError("nothing was started; first:\n  " + "\n  ".join(lacking))
    items = list(plan.runs.values())
    if args.retry:
        for item in items:
            if item.state == "failed":
                item.run["error"].unlink(missing_ok=True)
                item.state = item.run.state()
        plans.assign_milestones(items)
    todo = [item for item in items if item.state in plans.TO_DO]
    if not todo and not any(item.state == "running" for item in items):
        print("nothing to start" + ("; failed runs wait for --retry" if _having(items, "failed") else ""))
        return finish(plan, flags.grid_flags(args))
    if on_slurm and not args.wait:
        return send(plan, flags.grid_flags(args))
    if args.no_wait:
        return leave(Path(plan.cluster.runs))
    display = Display(len(items))
    if on_slurm:
        from pipeline.jobs.slurm import reconcile

        completed = reconcile.follow(plan, display.show, display.say)
        farewell = "no longer watching; the jobs go on. The same command watches again."
    else:
        from pipeline.jobs import life, local

        plans.publish(plan, todo)
        jobs = plan.cluster.jobs or max(1, len(life.gpus(plan.cluster)))
        completed = local.Queue(plan, jobs).run(display.show)
        farewell = "stopped; every run saved what it had. The same command goes on."
    display.close()
    if not completed:
        print(farewell, file=sys.stderr)
        return 130
    return finish(plan, flags.grid_flags(args))


def chosen_cluster(cluster: Cluster, args: argparse.Namespace) -> Cluster:
    """The cluster file's facts, with what the flags say otherwise."""
    if args.no_ray:
        cluster = dataclasses.replace(cluster, ray=False)
    if args.jobs is not None:
        if args.jobs < 1:
            raise ValueError(f"--jobs is {args.jobs}; give 1 or more")
        slurm = dataclasses.replace(cluster.slurm, parallelism=args.jobs)
        cluster = dataclasses.replace(cluster, jobs=args.jobs, slurm=slurm)
    return cluster


def dry_run(plan: Plan) -> int:
    """Say what would be sent, what it would take and what is missing; 3 when something is."""
    from pipeline.jobs import estimate, preflight

    if plan.cluster.executor == "slurm":
        print_arrays(plan)
    rows = [[item.run.id, item.spec.epochs, item.published_by] for item in plan.runs.values() if item.published_by]
    if rows:
        print(table(rows, header=("milestone", "epochs", "carried by")) + "\n")
    print("\n".join(estimate.lines(estimate.estimate(plan, plan.cluster))))
    lacking = preflight.unmet(plan.cluster, plan)
    if lacking:
        print("\nnot met:\n  " + "\n  ".join(lacking))
    return 3 if lacking else 0


def print_arrays(plan: Plan) -> None:
    """The arrays that would be sent, as a table; where Slurm cannot be asked, as if its queue were empty."""
    from pipeline.jobs.slurm import reconcile, scheduler

    try:
        live = reconcile.carried(Path(plan.cluster.runs), scheduler.queued_jobs(Path(plan.cluster.runs)))
        limit = scheduler.max_array_size()
    except ValueError as error:
        live, limit = {}, scheduler.MAX_ARRAY
        print(f"as if the queue were empty: {error}")
    rows = []
    for array in reconcile.arrays_to_send(plan, live, limit=limit):
        runs = sum(len(job.runs) for job in array.jobs)
        after = f"afterany {len(array.parents)} runs" if array.parents else ""
        rows.append([array.name, len(array.jobs), array.parallelism, runs, after])
    if live:
        print(f"{len(live)} runs are carried by jobs in the queue")
    print(table(rows, header=("array", "tasks", "at once", "runs", "waits for")) if rows else "nothing to send")
    print()


def send(plan: Plan, hint: str) -> int:
    """Send what is to be sent and leave."""
    from pipeline.jobs.slurm import reconcile

    submissions, said = reconcile.submit_missing(plan)
    print("\n".join(said) if said else "nothing to send: every run to do is carried by a job in the queue")
    print(f"where they stand: python -m pipeline.status {hint}")
    return 0


def print_sbatch(plan: Plan) -> int:
    """Publish the plan and print the script that sends it."""
    from pipeline.jobs.slurm import reconcile

    if plan.cluster.executor != "slurm":
        raise ValueError('--print-sbatch needs a cluster file with executor = "slurm"; give --cluster')
    print(reconcile.script(plan))
    return 0


def leave(runs: Path) -> int:
    """Start the same launch in a session of its own, its output in a log file."""
    import subprocess

    runs.mkdir(parents=True, exist_ok=True)
    path = runs / f"launch-{time.strftime('%Y%m%d-%H%M%S')}.log"
    arguments = [argument for argument in sys.argv[1:] if argument != "--no-wait"]
    with open(path, "ab") as log:
        command = [sys.executable, "-m", "pipeline.launch", *arguments]
        process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True)
    print(f"running as process {process.pid}; log: {path}")
    return 0


def print_plan(plan: Plan) -> None:
    counts = plan.counts()
    states = sorted({state for states in counts.values() for state in states})
    rows = [
        [kind, sum(states_of.values()), *(states_of.get(state, 0) for state in states)]
        for kind, states_of in counts.items()
    ]
    print(f"grid {plan.grid}, preset {plan.preset.name}:\n")
    print(table(rows, header=("runs", "wanted", *states)))
    shared = [item for item in plan.runs.values() if item.children > 1]
    if shared:
        print(f"\n{sum(item.children for item in shared)} fine-tunes share {len(shared)} pretraining runs")
    carried = [item for item in plan.runs.values() if item.published_by]
    if carried:
        longer = len({item.published_by for item in carried})
        print(f"{len(carried)} pretraining runs are milestones of {longer} longer ones, published on their way")
    repeated = len(plan.wanted) - sum(counts["finetune"].values())
    if repeated:
        print(f"{repeated} fine-tunes are wanted more than once and run once")
    print(flush=True)


def finish(plan: Plan, hint: str) -> int:
    """The closing table; exit code 0 when every run is done, 1 otherwise."""
    items = list(plan.runs.values())
    bad = [item for item in items if item.state != "done"]
    print(f"{len(items) - len(bad)} of {len(items)} runs are done")
    if bad:
        rows = [[item.run.id, item.state, item.run.reason()[:100], item.run["log"]] for item in bad]
        print(table(rows, header=("run", "state", "reason", "log")))
    print(f"the table: python -m pipeline.report {hint}")
    return 1 if bad else 0


def _having(items: list[PlannedRun], state: str) -> list[PlannedRun]:
    return [item for item in items if item.state == state]


class Display:
    """A bar of finished runs with one line a working run on a terminal; plain lines now and then in a log."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.seen: dict[str, str] = {}
        self.said = 0.0
        self.live = sys.stdout.isatty()
        self.drawn = 0

    def show(self, items: list[PlannedRun], working: list[PlannedRun]) -> None:
        now = time.monotonic()
        changed = []
        for item in items:
            if self.seen.get(item.run.id, item.state) != item.state or (
                item.run.id not in self.seen and item.state == "running"
            ):
                changed.append(f"{item.state:12} {item.run.id} {item.run.reason()[:100]}".rstrip())
            self.seen[item.run.id] = item.state
        if not changed and now - self.said < (1.0 if self.live else LINE_SECONDS):
            return
        self.said = now
        done = len(_having(items, "done"))
        lines = [f"{item.run.id}: {_where(item)}" for item in working]
        if self.live:
            self._erase()
            for line in changed:
                print(line)
            filled = round(30 * done / self.total)
            lines.append(f"[{'#' * filled}{'.' * (30 - filled)}] {done} of {self.total} runs done")
            width = shutil.get_terminal_size().columns - 1  # a wrapped line would be erased in part only
            print("\n".join(line[:width] for line in lines), flush=True)
            self.drawn = len(lines)
        else:
            print("\n".join(changed or lines), flush=True)

    def say(self, lines: list[str]) -> None:
        """Lines that stay."""
        self._erase()
        for line in lines:
            print(line, flush=True)

    def close(self) -> None:
        self._erase()

    def _erase(self) -> None:
        if self.live and self.drawn:
            print(f"\x1b[{self.drawn}F\x1b[J", end="")
            self.drawn = 0


def _where(item: PlannedRun) -> str:
    """`epoch 2/3 step 40/149, 36 images a second, 4 min left`."""
    at = item.run.progress()
    if not at:
        return "starting"
    left = f", {duration(at['eta_seconds'])} left at most" if at["eta_seconds"] else ""
    return (
        f"epoch {at['epoch'] + 1}/{at['epochs']}, step {at['step']}/{at['steps']}, "
        f"{at['images_per_second']:.0f} images a second{left}"
    )


if __name__ == "__main__":
    run_command(main)
