"""Work orders: which runs travel together, and the folder that says so before anything is sent.

A pretraining run travels with its milestones alone; the fine-tunes of one (dataset, method, arm) travel as one
fan-out. A submission is an array of such jobs, `runs`/.orders/<token>/: `order.json` is there before sbatch is called,
`job.json` once the job id is known. Both are about jobs only: deleting them loses no result.
"""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.core import files
from pipeline.jobs.plan import PlannedRun
from pipeline.runs.folder import Run
from pipeline.runs.identity import recipe
from pipeline.runs.spec import FinetuneSpec, Spec, method_of

FOLDER = ".orders"


@dataclass
class Job:
    """The runs one job carries; a pretraining run comes before its milestones."""

    runs: list[PlannedRun] = field(default_factory=list)

    @property
    def spec(self) -> Spec:
        return self.runs[0].spec

    @property
    def fan_out(self) -> bool:
        return isinstance(self.spec, FinetuneSpec)

    @property
    def parents(self) -> set[str]:
        return {item.parent for item in self.runs if item.parent}

    def name(self) -> str:
        """Dataset, method, arm and seeds."""
        arm = [self.spec.arm] if isinstance(self.spec, FinetuneSpec) else []
        return ".".join([self.spec.dataset.name, method_of(self.spec), *arm, seeds_of(self.runs)])


def jobs_of(items: Iterable[PlannedRun]) -> list[Job]:
    """The runs as jobs, in their order; one whose carrier is not among them travels by itself."""
    chosen = {item.run.id: item for item in items}
    out: dict[str, Job] = {}
    for item in chosen.values():
        own = item.published_by if item.published_by in chosen else item.run.id
        key = recipe(item.spec) if isinstance(item.spec, FinetuneSpec) else str(own)
        out.setdefault(key, Job()).runs.append(item)
    for job in out.values():
        if not job.fan_out:
            job.runs.sort(key=lambda item: item.spec.epochs, reverse=True)
    return list(out.values())


@dataclass
class JobArray:
    """An array that could be sent: jobs of one kind that wait for the same pretraining runs."""

    name: str
    jobs: list[Job]
    parents: frozenset[str]
    """The pretraining runs it waits for; those done are left out."""
    parallelism: int

    def __str__(self) -> str:
        """`an array of 5, 2 at once, 20 runs, after 5 pretraining runs`."""
        count = sum(len(job.runs) for job in self.jobs)
        after = f", after {len(self.parents)} pretraining runs" if self.parents else ""
        tasks = "a job" if len(self.jobs) == 1 else f"an array of {len(self.jobs)}, {self.parallelism} at once"
        return f"{tasks}, {count} runs{after}"


def job_arrays(grid: str, chosen: list[Job], *, waits_for: set[str], limit: int, parallelism: int) -> list[JobArray]:
    """The jobs as arrays of at most `limit` tasks, pretraining first; `waits_for` are the runs not done yet."""
    groups: dict[tuple[Any, ...], list[Job]] = {}
    for job in chosen:
        parents = frozenset(job.parents & waits_for)
        key = (job.fan_out, job.spec.dataset.name, method_of(job.spec), parents)
        groups.setdefault(key, []).append(job)
    out = []
    for (fan_out, dataset, method, parents), group in groups.items():
        chunks = [group[start : start + limit] for start in range(0, len(group), limit)]
        for chunk in chunks:
            items = [item for job in chunk for item in job.runs]
            name = ".".join([grid, dataset, method, *(["finetune"] if fan_out else []), seeds_of(items)])
            out.append(JobArray(name, chunk, parents, min(len(chunk), max(1, parallelism // len(chunks)))))
    return sorted(out, key=lambda array: array.jobs[0].fan_out)


def seeds_of(items: list[PlannedRun]) -> str:
    """`s77`, `s77-81` or `s77,79`."""
    seeds = sorted({item.spec.seed for item in items})
    if len(seeds) > 1 and seeds == list(range(seeds[0], seeds[-1] + 1)):
        return f"s{seeds[0]}-{seeds[-1]}"
    return "s" + ",".join(str(seed) for seed in seeds)


@dataclass(frozen=True)
class Submission:
    """An array that was published: its folder, and which runs each of its tasks carries."""

    folder: Path
    name: str
    tasks: tuple[tuple[str, ...], ...]
    fan_out: bool
    code: str
    """The version of the code that its jobs run."""
    by_hand: bool
    """Whether a person sends it, from a script of `launch --print-sbatch`."""

    @property
    def token(self) -> str:
        return self.folder.name

    def task_folder(self, index: int) -> Path:
        """What the task with this index carries: a run's folder, or one of the order's own with a list of runs."""
        runs = self.folder.parent.parent
        return self.folder / str(index) if self.fan_out else runs / self.tasks[index][0]

    @property
    def job(self) -> Mapping[str, Any]:
        """`id`, once it is known, and `released`."""
        path = self.folder / "job.json"
        value: dict[str, Any] = files.read_json(path) if path.exists() else {}
        return value

    def note_job(self, job_id: str, *, released: bool) -> None:
        files.write_json(self.folder / "job.json", {"id": job_id, "released": released})

    def live_tasks(self) -> Iterator[tuple[str, tuple[str, ...]]]:
        """The Slurm id of each task with the runs it still stands for: those it skipped are anyone's again.

        Nothing, while the order's job id is not known.
        """
        if job := self.job:
            for index, part in enumerate(self.tasks):
                skipped = skipped_runs(self.folder / str(index)) if self.fan_out else {}
                name = f"{job['id']}_{index}" if len(self.tasks) > 1 else str(job["id"])
                yield name, tuple(run for run in part if run not in skipped)

    def remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


def publish(runs: Path, array: JobArray, code: Path, *, by_hand: bool = False) -> Submission:
    """Write a submission's folder, its own file last; before it, which milestones the pretraining runs are to carry."""
    folder = runs / FOLDER / f"{time.strftime('%Y%m%d-%H%M%S')}-{uuid.uuid4().hex[:8]}"
    tasks = tuple(tuple(item.run.id for item in job.runs) for job in array.jobs)
    fan_out = array.jobs[0].fan_out
    if fan_out:
        for index, part in enumerate(tasks):
            files.write_json(folder / str(index) / "runs.json", list(part))
    else:
        for first, *others in (job.runs for job in array.jobs):
            request_milestones(first.run, [item.spec for item in others])
    submission = Submission(folder, array.name, tasks, fan_out, code.name, by_hand)
    write_submission(submission)
    return submission


def request_milestones(longer: Run, shorter: Iterable[Spec]) -> None:
    """Note what a run is to carry; one that has begun keeps what it has."""
    epochs = sorted(spec.epochs for spec in shorter)
    if not longer.began and epochs != longer.milestones():
        files.write_json(longer["milestones"], epochs)


def write_submission(submission: Submission) -> None:
    value = dataclasses.asdict(submission)
    del value["folder"]
    files.write_json(submission.folder / "order.json", value)


def read_submissions(runs: Path) -> list[Submission]:
    """Every submission that was published, oldest first."""
    out = []
    for path in sorted((runs / FOLDER).glob("*/order.json")):
        with contextlib.suppress(FileNotFoundError):  # removed meanwhile by another launch or clean
            out.append(read_submission(path.parent))
    return out


def cancelled(runs: Path) -> set[str]:
    """The runs of submissions that a person cancelled."""
    marked = (submission for submission in read_submissions(runs) if (submission.folder / "cancelled").exists())
    return {run for submission in marked for part in submission.tasks for run in part}


def read_submission(folder: Path) -> Submission:
    value = files.read_json(folder / "order.json")
    tasks = tuple(tuple(task) for task in value.pop("tasks"))
    return Submission(folder=folder, tasks=tasks, **value)


def runs_of(folder: Path) -> list[Path]:
    """The run folders that a fan-out's folder names."""
    return [folder.parent.parent.parent / run for run in files.read_json(folder / "runs.json")]


def skipped_runs(folder: Path) -> dict[str, str]:
    """The runs a fan-out left out, each with the reason."""
    path = folder / "skipped.json"
    value: dict[str, str] = files.read_json(path) if path.exists() else {}
    return value


def note_skipped(folder: Path, skipped: dict[str, str]) -> None:
    """Say which runs a fan-out leaves out, so that the next launch may send them again."""
    if skipped or (folder / "skipped.json").exists():
        files.write_json(folder / "skipped.json", skipped)
