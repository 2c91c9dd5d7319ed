"""A fan-out: the fine-tunes of one (dataset, method, arm), seeds × label fractions, in one job on one GPU.

Ray Tune, or plain worker processes, carry the trials; what became of each is read from its run folder, so a fan-out
that was stopped, or lost a worker, goes on with the trials that are missing.
"""

from __future__ import annotations

import dataclasses
import os
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from pipeline.core import files
from pipeline.jobs import submissions
from pipeline.jobs.execute import RunPayload, site_of
from pipeline.jobs.life import STOPPED, TOLD, Stop, gpus, grace_of, leave, output_to, see_gpus
from pipeline.jobs.plan import TO_DO
from pipeline.runs.folder import Run
from pipeline.runs.identity import run_id
from pipeline.runs.spec import FinetuneSpec

RETRIES = 2  # of a trial whose process died, or that failed for another reason than a ValueError, in one job


@dataclasses.dataclass(frozen=True)
class FanOut:
    """Call it to bring the runs that a folder of a submission names to their end."""

    folder: str

    def __call__(self) -> None:
        folder = Path(self.folder)
        site = site_of(Run(submissions.runs_of(folder)[0]))
        see_gpus()
        told = folder / "stop"
        told.unlink(missing_ok=True)
        os.environ[TOLD] = str(told)
        with Stop(grace=grace_of(site), tell=told) as stop, output_to(folder / "log.txt"):
            code = fan_out(folder, stop)
        leave(code, stop)

    def checkpoint(self) -> Any:
        """What submitit submits again after a time limit: the same fan-out; the state is in the run folders."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def fan_out(folder: Path, stop: Stop) -> int:
    """Carry the trials out; 0 when nothing failed, `STOPPED` when asked to stop before the end, else 1."""
    runs = [Run(path) for path in submissions.runs_of(folder)]
    site = site_of(runs[0])
    tried: Counter[str] = Counter()
    skipped: dict[str, str] = {}
    trials = site.trials_per_gpu
    while not stop():
        waiting = {run.id: parent_state(run) for run in runs if run.state() in TO_DO}
        skipped = {name: state for name, state in waiting.items() if state != "done"}
        submissions.note_skipped(folder, skipped)
        ready = [run for run in runs if waiting.get(run.id) == "done" and tried[run.id] <= RETRIES]
        if not ready:
            break
        print(f"{len(ready)} of {len(runs)} trials to do", flush=True)
        _carry(site.ray)([str(run.folder) for run in ready], trials=trials, gpus=len(gpus(site)), stop=stop)
        for run in ready:
            tried[run.id] += 1
            print(f"{run.id}: {run.state()} {run.reason()}".rstrip(), flush=True)
            if "OutOfMemoryError" in run.reason() and trials > 1:
                print(f"the GPU cannot hold {trials} trials at once (trials_per_gpu); one at a time now", flush=True)
                trials = 1
            if run.state() == "failed" and tried[run.id] <= RETRIES and not run.reason().startswith("ValueError"):
                run["error"].unlink()
    if stop() and any(run.state() in TO_DO for run in runs):
        return STOPPED
    for run in runs:
        if tried[run.id] > RETRIES and run.state() in TO_DO:
            note_death(run, tried[run.id])
    for name, state in skipped.items():
        print(f"{name}: blocked, its pretraining run is {state}", flush=True)
    return int(any(run.state() == "failed" for run in runs))


def _carry(ray: bool) -> Any:
    """The engine that carries trials out."""
    if ray:
        from pipeline.jobs.engines import ray_tune

        return ray_tune.run_trials
    from pipeline.jobs.engines import processes

    return processes.run_trials


def parent_state(run: Run) -> str:
    """The state of the pretraining run a trial starts from; `done` where it needs none."""
    spec = run.spec
    if not isinstance(spec, FinetuneSpec) or spec.pretrain is None:
        return "done"
    return Run(run.folder.parent / run_id(spec.pretrain)).state()


def note_death(run: Run, times: int) -> None:
    """Give a run whose process keeps dying without a word an error to show."""
    files.write_text(
        run["error"],
        f"its process died {times} times and left no error: killed, or out of memory (python -m pipeline.logs "
        f"{run.id} --job); launch --retry goes on from its last checkpoint\n",
    )


def carrier(submission: submissions.Submission, index: int) -> RunPayload | FanOut:
    """What travels as one task of a submission: it knows a folder's path and nothing else."""
    folder = str(submission.task_folder(index))
    return FanOut(folder) if submission.fan_out else RunPayload(folder)


if __name__ == "__main__":  # in the scripts of launch --print-sbatch: ORDER_FOLDER
    sent = submissions.read_submission(Path(sys.argv[1]))
    carrier(sent, int(os.environ.get("SLURM_ARRAY_TASK_ID", "0")))()
