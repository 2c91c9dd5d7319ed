"""More tasks than an array may have: sent in chunks, all run.

python tests/slurm/many.py [FOLDER] [TASKS]

Sends TASKS (1,200) pretraining runs that are done already, so that each task takes a second, with the site's own
MaxArraySize. The dev cluster must be up.
"""

from __future__ import annotations

import dataclasses
import sys
import tempfile
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1] / "support"), str(Path(__file__).parents[1])]

import finished  # noqa: E402
import tiny  # noqa: E402

from pipeline.jobs import snapshot, submissions  # noqa: E402
from pipeline.jobs.arrays import job_arrays, jobs_of  # noqa: E402
from pipeline.jobs.plan import PlannedRun  # noqa: E402
from pipeline.jobs.slurm import scheduler, submit  # noqa: E402
from pipeline.runs.cluster import Slurm  # noqa: E402


def send(folder: Path, *, tasks: int, limit: int) -> list[int]:
    """Send the tasks in arrays of at most `limit`; returns the arrays' sizes."""

    class shards:
        name, fingerprint = "tiny", "0" * 16

    wanted = Slurm(partition="main", gres="", cpus=1, memory_gb=0.5, hours=0.5, signal_seconds=60)
    site = dataclasses.replace(tiny.make_cluster(folder), executor="slurm", slurm=wanted)
    runs = []
    for seed in range(tasks):
        spec = tiny.make_pretrain(shards, seed=seed)
        run = tiny.announce(spec, site)
        run.finish(finished.result(spec, {}))
        runs.append(PlannedRun(run, spec, "pending", None))
    copy = snapshot.snapshot(Path(site.runs))
    arrays = job_arrays("many", jobs_of(runs), waits_for=set(), limit=limit, parallelism=1000)
    for array in arrays:
        submission = submissions.publish(Path(site.runs), array, copy)
        submit.send(submission, site, copy, after=(), parallelism=array.parallelism)
    return [len(array.jobs) for array in arrays]


def ran(folder: Path) -> int:
    """How many tasks have run, each once."""
    logs = [path.read_text() for path in (folder / "runs").glob("*/log.txt")]
    assert all(text.count("this run is done already") <= 1 for text in logs), "a task ran twice"
    return sum("this run is done already" in text for text in logs)


def main(folder: Path, tasks: int) -> None:
    limit = scheduler.max_array_size()
    started = time.monotonic()
    print(f"MaxArraySize {limit}: {tasks} tasks in arrays of {send(folder, tasks=tasks, limit=limit)}", flush=True)
    while (count := ran(folder)) < tasks:
        print(f"{time.monotonic() - started:6.0f} s  {count} ran", flush=True)
        time.sleep(30)
    print(f"{time.monotonic() - started:6.0f} s  all {tasks} ran, each once")


if __name__ == "__main__":
    where = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(tempfile.mkdtemp(prefix="many-"))
    main(where.absolute(), int(sys.argv[2]) if len(sys.argv) > 2 else 1200)
