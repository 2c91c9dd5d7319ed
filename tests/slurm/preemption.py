"""What an interruption costs on the dev cluster: the work lost, and the time to the first new step.

python tests/slurm/preemption.py [FOLDER]

One pretraining run (tiny backbones, 32 pixels, a checkpoint every ten seconds) is interrupted in each way in turn.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1] / "support"), str(Path(__file__).parents[1])]

import sites  # noqa: E402
import tiny  # noqa: E402

from pipeline.core.console import table  # noqa: E402
from pipeline.jobs.slurm import queue, scheduler  # noqa: E402
from pipeline.runs.folder import Run  # noqa: E402

URGENT = "sbatch -p urgent --exclusive -t 2 -o /dev/null --wrap".split()
CLUSTER = sites.SLURM.replace("checkpoint_minutes = 60.0", "checkpoint_minutes = 0.1666667")


def until(condition: Callable[[], object]) -> float:
    """Wait until it holds; returns the time, in seconds of a clock."""
    while not condition():
        time.sleep(0.01)
    return time.monotonic()


def job_of(run: Run) -> scheduler.QueuedJob | None:
    runs = run.folder.parent
    return queue.queued_runs(runs, scheduler.queued_jobs(runs)).get(run.id)


def call(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)


def global_step(run: Run) -> int:
    at = run.progress()
    return int(at["epoch"] * at["steps"] + at["step"]) if at else 0


def newest(run: Run) -> int:
    """The global step of the newest checkpoint."""
    found = run.checkpoints()
    return int(found[0].name.split("-")[1]) if found else 0


def measure(run: Run, interrupt: Callable[[], None], seconds_a_step: float) -> list[str]:
    """A row: seconds of work lost, to the checkpoint, to the job's new start, from there to the first new step."""
    log = run["log"]
    before, starts = global_step(run), log.read_text().count("1 threads")
    began = time.monotonic()
    interrupt()
    gone = until(lambda: run.state() != "running")
    saved = newest(run)
    again = until(lambda: run.state() == "running")
    until(lambda: log.read_text().count("1 threads") > starts)
    written = time.time_ns()
    stepped = until(lambda: run["progress"].exists() and run["progress"].stat().st_mtime_ns > written)
    lost = max(0, before - saved) * seconds_a_step
    return [f"{lost:.1f}", f"{gone - began:.1f}", f"{again - gone:.1f}", f"{stepped - again:.1f}"]


def main(folder: Path) -> None:
    shards = tiny.make_shards(folder).folder.parent
    site = sites.Site(folder, shards, cluster=CLUSTER)
    site.write_grid(epochs=4000)
    code, out = site.run("launch")
    assert code == 0, out
    run = site.wait_for_a_step("cass")
    for job in {job.id for job in scheduler.queued_jobs(folder / "runs")} - {job_of(run).id}:  # type: ignore[union-attr]
        scheduler.scancel([job])
    first, began = global_step(run), time.monotonic()
    time.sleep(20)
    seconds_a_step = (time.monotonic() - began) / max(1, global_step(run) - first)

    def the_job() -> str:
        job = job_of(run)
        assert job is not None
        return job.id

    def killed() -> None:
        call("scancel", "--signal=KILL", f"{the_job()}.0")
        until(lambda: job_of(run) is None)
        assert site.run("launch")[0] == 0

    ways = {
        "time limit or preemption, with SIGUSR2": lambda: call("scancel", "--signal=USR2", the_job()),
        "preempted by a job in urgent": lambda: [call(*URGENT, "sleep 1") for _ in range(3)],
        "scontrol requeue (SIGTERM)": lambda: call("scontrol", "requeue", the_job()),
        "kill -9 of the step, then launch": killed,
    }
    header = ("interruption", "work lost", "to leaving", "to the new start", "to the first new step")
    rows = []
    for name, way in ways.items():
        for _ in range(2):
            rows.append([name, *measure(run, way, seconds_a_step)])  # type: ignore[arg-type]
            print("  ".join(rows[-1]), flush=True)
            time.sleep(5)
    scheduler.scancel(sorted({job.id for job in scheduler.queued_jobs(folder / "runs")}))
    print(f"seconds; a step takes {seconds_a_step:.3f} s\n" + table(rows, header=header))


if __name__ == "__main__":
    main(Path(sys.argv[1]).absolute() if len(sys.argv) > 1 else Path(tempfile.mkdtemp(prefix="preemption-")))
