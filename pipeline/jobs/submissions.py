"""Submissions: job arrays on disk, each in a folder that says which runs its tasks train before anything is sent.

A submission is the folder `runs`/.submissions/<id>/. `submission.json` is there before sbatch is called, `job.json`
once the job id is known. Both are about jobs only: deleting them loses no result.
"""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
import time
import uuid
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.core import files
from pipeline.jobs.arrays import JobArray
from pipeline.runs.folder import Run
from pipeline.runs.spec import Spec

FOLDER, FILE = ".submissions", "submission.json"
LIVES = ".launch-lives.lock"  # in the runs folder: held shared by every launch that stays
# The code up to commit 0a3c75c wrote these, with the key `parts` instead of `tasks`. They are still read, so that the
# jobs that it sent are known, repaired, cancelled and cleaned.
OLD_FOLDER, OLD_FILE = ".orders", "order.json"


@dataclass(frozen=True)
class Submission:
    """A job array that was published: its folder, and which runs each of its tasks trains."""

    folder: Path
    name: str
    tasks: tuple[tuple[str, ...], ...]
    """The run ids of each task, by its index in the array."""
    fan_out: bool
    """Whether each task has a folder of its own with a list of runs: a fan-out, or pretraining runs side by side."""
    code: str
    """The version of the code that its jobs run."""
    by_hand: bool
    """Whether a person sends it, from a script of `launch --print-sbatch`."""

    @property
    def id(self) -> str:
        return self.folder.name

    @property
    def runs(self) -> set[str]:
        """The ids of the runs of all tasks."""
        return {run for task in self.tasks for run in task}

    def task_folder(self, index: int) -> Path:
        """What the task with this index executes: a run's folder, or its own folder with a list of runs."""
        runs = self.folder.parent.parent
        return self.folder / str(index) if self.fan_out else runs / self.tasks[index][0]

    @property
    def job(self) -> Mapping[str, Any]:
        """`id` and `released`; empty until the job's id is known."""
        path = self.folder / "job.json"
        value: dict[str, Any] = files.read_json(path, dict, keys=("id", "released")) if path.exists() else {}
        return value

    def note_job(self, job_id: str, *, released: bool) -> None:
        files.write_json(self.folder / "job.json", {"id": job_id, "released": released})

    @property
    def cancelled(self) -> bool:
        """Whether a person cancelled it."""
        return (self.folder / "cancelled").exists()

    def note_cancelled(self) -> None:
        """Say that a person cancelled it, so that a launch that waits for it does not submit its runs again."""
        with contextlib.suppress(FileNotFoundError):  # its runs are done, and clean has removed it meanwhile
            (self.folder / "cancelled").touch()

    def live_tasks(self, seen: str = "") -> Iterator[tuple[str, tuple[str, ...]]]:
        """The Slurm id of each task with its runs, without those that it skipped: they may be submitted again.

        Yields nothing until the job's id is known. seen: the id that the queue shows, for one sent by hand, which no
        launch has noted yet.
        """
        job = self.job
        if not job and self.by_hand and seen:
            job = {"id": seen}
        if job:
            for index, task in enumerate(self.tasks):
                skipped = skipped_runs(self.folder / str(index)) if self.fan_out else {}
                name = f"{job['id']}_{index}" if len(self.tasks) > 1 else str(job["id"])
                yield name, tuple(run for run in task if run not in skipped)

    def remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


def publish(runs: Path, array: JobArray, code: Path, *, by_hand: bool = False) -> Submission:
    """Write a submission's folder, `submission.json` last; first, what milestones its pretraining runs publish."""
    folder = runs / FOLDER / f"{time.strftime('%Y%m%d-%H%M%S')}-{uuid.uuid4().hex[:8]}"
    tasks = tuple(tuple(planned.run.id for planned in job.runs) for job in array.jobs)
    fan_out = array.jobs[0].fan_out or bool(array.jobs[0].parts)
    for index, job in enumerate(array.jobs):
        listed = job.runs
        if not job.fan_out:
            listed = [part.runs[0] for part in job.parts]
            for longest, *shorter in (part.runs for part in job.parts or [job]):
                request_milestones(longest.run, [planned.spec for planned in shorter])
        if fan_out:
            files.write_json(folder / str(index) / "runs.json", [planned.run.id for planned in listed])
    submission = Submission(folder, array.name, tasks, fan_out, code.name, by_hand)
    write_submission(submission)
    return submission


def request_milestones(longer: Run, shorter: Iterable[Spec]) -> None:
    """Note which milestones a run is to publish. A run that has started keeps its milestones."""
    epochs = sorted(spec.epochs for spec in shorter)
    if not longer.began and epochs != longer.milestones():
        files.write_json(longer["milestones"], epochs)


def write_submission(submission: Submission) -> None:
    value = dataclasses.asdict(submission)
    del value["folder"]
    files.write_json(submission.folder / FILE, value)


def read_submissions(runs: Path) -> list[Submission]:
    """Every submission that was published, oldest first."""
    found = [*(runs / OLD_FOLDER).glob(f"*/{OLD_FILE}"), *(runs / FOLDER).glob(f"*/{FILE}")]
    out = []
    for path in sorted(found, key=lambda path: path.parent.name):
        with contextlib.suppress(FileNotFoundError):  # removed meanwhile by another launch or clean
            out.append(read_submission(path.parent))
    return out


def read_submission(folder: Path) -> Submission:
    """The submission in a folder; raises `FileNotFoundError` where there is none."""
    old = folder.parent.name == OLD_FOLDER
    path = folder / (OLD_FILE if old else FILE)
    value = files.read_json(path, dict)
    with files.reading(path):
        tasks = tuple(tuple(task) for task in value.pop("parts" if old else "tasks"))
        if not all(isinstance(run, str) for task in tasks for run in task):
            raise TypeError("its tasks are no lists of run ids")
        return Submission(folder=folder, tasks=tasks, **value)


@contextlib.contextmanager
def launch_lives(runs: Path) -> Iterator[None]:
    """Let `status --watch` know that a launch lives that may start more runs."""
    with files.lock(runs / LIVES, patience=10, what="whether a launch lives", shared=True):
        yield


def has_launch(runs: Path) -> bool:
    """Whether a launch lives that stays until its runs have ended."""
    return files.is_locked(runs / LIVES, shared=True)


def cancelled_submissions(runs: Path) -> set[str]:
    """The ids of the submissions that a person cancelled."""
    return {submission.id for submission in read_submissions(runs) if submission.cancelled}


def cancelled_runs(runs: Path, but: Container[str] = ()) -> set[str]:
    """The ids of the runs of submissions that a person cancelled, without those submissions in `but`."""
    found = [submission for submission in read_submissions(runs) if submission.cancelled and submission.id not in but]
    return {run for submission in found for run in submission.runs}


def job_logs(runs: Path, run_id: str) -> list[Path]:
    """The output files of every job that trained a run, oldest first."""
    out = []
    for submission in read_submissions(runs):
        for index in [index for index, task in enumerate(submission.tasks) if run_id in task]:
            jobs = [job for job, _ in submission.live_tasks()]
            out += sorted((submission.folder / "submitit").glob(f"{jobs[index]}_0_log.*" if jobs else "*_log.*"))
            out += [submission.folder / str(index) / "log.txt"] if submission.fan_out else []
    return [path for path in out if path.exists()]


def runs_of(folder: Path) -> list[Path]:
    """The run folders that a fan-out's folder lists."""
    path = folder / "runs.json"
    with files.reading(path):
        return [folder.parent.parent.parent / run for run in files.read_json(path, list)]


def skipped_runs(folder: Path) -> dict[str, str]:
    """The runs that a fan-out skips, each with the reason."""
    path = folder / "skipped.json"
    value: dict[str, str] = files.read_json(path, dict) if path.exists() else {}
    return value


def note_skipped(folder: Path, skipped: dict[str, str]) -> None:
    """Say which runs a fan-out skips, so that the next launch may submit them again."""
    if skipped or (folder / "skipped.json").exists():
        files.write_json(folder / "skipped.json", skipped)
