"""A fan-out: the fine-tunes of one (dataset, method, arm), seeds × label fractions, in one job on its GPUs; or the
pretraining runs of a job for a whole node, on a GPU each.

Ray Tune, or plain worker processes, execute the trials. The state of each is read from its run folder, so a fan-out
that was stopped or lost a worker continues with the trials that are not done.

`python -m pipeline.jobs.fanout SUBMISSION_FOLDER` executes one task of a submission; $SLURM_ARRAY_TASK_ID says which.
"""

from __future__ import annotations

import dataclasses
import os
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipeline.core import files
from pipeline.core.console import counted
from pipeline.jobs import submissions
from pipeline.jobs.execute import RunPayload, site_of
from pipeline.jobs.gpus import gpus, use_assigned_gpu
from pipeline.jobs.output import output_to
from pipeline.jobs.plan import TO_DO
from pipeline.jobs.signals import REQUEUE, STOP_FILE, STOPPED, Stop, grace_of, leave
from pipeline.jobs.submissions import Submission
from pipeline.runs.folder import Run
from pipeline.runs.identity import run_id
from pipeline.runs.spec import FinetuneSpec, PretrainSpec

MEMORY_SIGNS = (
    "OutOfMemoryError",
    "out of memory",
    "MemoryError",
    "cudaErrorMemoryAllocation",
    "_ALLOC_FAILED",  # of cuBLAS, cuDNN, cuSPARSE, cuSOLVER
    "CUDNN_STATUS_NOT_INITIALIZED",
    "CUBLAS_STATUS_NOT_INITIALIZED",  # no room for the libraries' own handles
    "unable to find an engine to execute this computation",  # cuDNN, where no algorithm's workspace fits
)
"""In the reason of a run that found too little memory, on the GPU or the host."""
RETRIES = 2  # in one job, of a trial whose process died or that failed for another reason than a ValueError


@dataclasses.dataclass(frozen=True)
class FanOutPayload:
    """What a job is given: call it to execute the runs that a task's folder lists."""

    folder: str

    def __call__(self) -> None:
        folder = Path(self.folder)
        site = site_of(Run(submissions.runs_of(folder)[0]))
        use_assigned_gpu()
        stop_file = folder / "stop"
        stop_file.unlink(missing_ok=True)
        os.environ[STOP_FILE] = str(stop_file)
        with Stop(grace=grace_of(site), stop_file=stop_file) as stop, output_to(folder / "log.txt"):
            code = execute_fan_out(folder, stop)
        leave(code, stop)

    def checkpoint(self) -> Any:
        """What submitit resubmits after a time limit: the same payload; the state is in the run folders."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def payload_of(submission: Submission, index: int) -> RunPayload | FanOutPayload:
    """What the task with this index executes; it holds a folder's path and nothing else."""
    folder = str(submission.task_folder(index))
    return FanOutPayload(folder) if submission.fan_out else RunPayload(folder)


def execute_fan_out(folder: Path, stop: Callable[[], bool]) -> int:
    """Execute the trials; 0: none failed, `STOPPED`: it was asked to stop before the end, `REQUEUE`: what is left waits
    for another GPU model, 1: at least one failed."""
    runs = [Run(path) for path in submissions.runs_of(folder)]
    site = site_of(runs[0])
    for run in runs:
        run["waits"].unlink(missing_ok=True)
    tried: Counter[str] = Counter()
    skipped: dict[str, str] = {}
    names = gpus(site)
    pretraining = isinstance(runs[0].spec, PretrainSpec)
    alone = len(names) or (site.slurm.runs_per_job if pretraining else 1)  # at once where each has all of a GPU
    trials = alone if pretraining else alone * site.trials_per_gpu
    while not stop():
        parents = {run.id: parent_state(run) for run in runs if run.state() in TO_DO}
        skipped = {name: state for name, state in parents.items() if state != "done"}
        submissions.note_skipped(folder, skipped)
        ready = [run for run in runs if parents.get(run.id) == "done" and tried[run.id] <= RETRIES]
        ready = [run for run in ready if not run["waits"].exists()]
        if not ready:
            break
        print(f"{len(ready)} of {counted(len(runs), 'trial')} to do", flush=True)
        run_trials = engine(site.ray and not pretraining)
        run_trials([str(run.folder) for run in ready], trials=trials, gpus=names, stop=stop)
        crowded = trials > alone and any(lacked_memory(run) for run in ready)
        for run in ready:
            tried[run.id] += not (crowded and lacked_memory(run))  # alone it may well fit
            print(f"{run.id}: {run.state()} {run.reason()}".rstrip(), flush=True)
            if run.state() == "failed" and tried[run.id] <= RETRIES and not run.reason().startswith("ValueError"):
                run["error"].unlink()
        if crowded and not stop():
            why, fewer = "memory ran out, or a process died", "one" if alone == 1 else alone
            print(f"with {trials} trials at once (trials_per_gpu) {why}; {fewer} at a time now", flush=True)
            trials = alone
    if stop() and any(run.state() in TO_DO for run in runs):
        return STOPPED
    if any(run["waits"].exists() for run in runs):
        return REQUEUE
    for run in runs:
        if tried[run.id] > RETRIES and run.state() in TO_DO:
            note_deaths(run, tried[run.id])
    for name, state in skipped.items():
        print(f"{name}: blocked, its pretraining run is {state}", flush=True)
    return int(any(run.state() == "failed" for run in runs))


def lacked_memory(run: Run) -> bool:
    """Whether a trial that has ended may have found too little memory: it says so, or its process died without a word
    (and does not wait for another GPU).

    A shortage shows in many ways: CUDA's own libraries give codes of theirs, and on a full host the kernel kills.
    """
    if run.state() == "failed":
        return any(sign in run.reason() for sign in MEMORY_SIGNS)
    return run.state() in TO_DO and not run["waits"].exists()


def engine(ray: bool) -> Callable[..., None]:
    """The function `run_trials` of the engine with or without Ray."""
    if ray:
        from pipeline.jobs.engines import ray_tune

        return ray_tune.run_trials
    from pipeline.jobs.engines import processes

    return processes.run_trials


def parent_state(run: Run) -> str:
    """The state of the pretraining run that a trial starts from; `done` if it starts from none."""
    spec = run.spec
    if not isinstance(spec, FinetuneSpec) or spec.pretrain is None:
        return "done"
    return Run(run.folder.parent / run_id(spec.pretrain)).state()


def note_deaths(run: Run, times: int) -> None:
    """Mark a run as failed whose process died `times` times without an error."""
    files.write_text(
        run["error"],
        f"its process died {times} times and left no error: killed, or out of memory (python -m pipeline.logs "
        f"{run.id} --job); launch --retry continues from its last checkpoint\n",
    )


if __name__ == "__main__":  # in the scripts of launch --print-sbatch
    submission = submissions.read_submission(Path(sys.argv[1]))
    payload_of(submission, int(os.environ.get("SLURM_ARRAY_TASK_ID", "0")))()
