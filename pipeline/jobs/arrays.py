"""Which runs share a job, and which jobs form an array.

A pretraining run and its milestones are one job; the fine-tunes of one (dataset, method, arm) are one job, a fan-out.
Where a site sells whole nodes, a job takes several pretraining runs side by side (`side_by_side`).
Runs of frozen features take seconds, so those of one dataset share a job, except where they wait for pretraining.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from pipeline.core.console import counted
from pipeline.jobs.plan import PlannedRun
from pipeline.runs.identity import recipe
from pipeline.runs.spec import FinetuneSpec, PretrainSpec, Spec, method_of


@dataclass
class Job:
    """The runs that one job trains; a pretraining run comes before its milestones."""

    runs: list[PlannedRun] = field(default_factory=list)
    parts: list[Job] = field(default_factory=list)
    """The pretraining jobs that it does side by side, where it is one for a whole node."""

    @property
    def spec(self) -> Spec:
        return self.runs[0].spec

    @property
    def fan_out(self) -> bool:
        return isinstance(self.spec, FinetuneSpec)

    @property
    def parents(self) -> set[str]:
        """The ids of the pretraining runs that its runs start from."""
        return {planned.parent for planned in self.runs if planned.parent}

    def name(self) -> str:
        """Dataset, method, arm (where all have one) and seeds."""
        arms = {planned.spec.arm for planned in self.runs if isinstance(planned.spec, FinetuneSpec)}
        arm = arms if len(arms) == 1 else ()
        return ".".join([self.spec.dataset.name, method_of(self.spec), *arm, seed_range(self.runs)])


def jobs_of(runs: Iterable[PlannedRun]) -> list[Job]:
    """The runs as jobs, in their order. A milestone whose longer run is not among them is a job of its own."""
    chosen = {planned.run.id: planned for planned in runs}
    out: dict[str, Job] = {}
    for planned in chosen.values():
        longest = planned.published_by if planned.published_by in chosen else planned.run.id
        key = _fan_out_of(planned.spec) if isinstance(planned.spec, FinetuneSpec) else str(longest)
        out.setdefault(key, Job()).runs.append(planned)
    for job in out.values():
        if not job.fan_out:
            job.runs.sort(key=lambda planned: planned.spec.epochs, reverse=True)
    return list(out.values())


def _fan_out_of(spec: FinetuneSpec) -> str:
    """Fine-tunes with the same text share a job."""
    if not spec.probe:
        return recipe(spec)
    return f"frozen {spec.dataset}" if spec.pretrain is None else recipe(replace(spec, probe="knn"))


def side_by_side(jobs: Iterable[Job], together: int) -> list[Job]:
    """The jobs, with `together` pretraining jobs in one: of one kind as far as possible, which end at the same time."""
    if together == 1:
        return list(jobs)

    def kind(job: Job) -> tuple[Any, ...]:
        arms = job.spec.arms if isinstance(job.spec, PretrainSpec) else ()
        return job.spec.dataset.name, method_of(job.spec), [arm.backbone for arm in arms], -job.spec.epochs

    alone: list[Job] = []
    fan_outs: list[Job] = []
    for job in jobs:
        (fan_outs if job.fan_out else alone).append(job)
    alone.sort(key=kind)
    groups = [alone[start : start + together] for start in range(0, len(alone), together)]
    return [Job([planned for job in group for planned in job.runs], group) for group in groups] + fan_outs


@dataclass
class JobArray:
    """Jobs of one kind that wait for the same pretraining runs; an executor can submit it."""

    name: str
    jobs: list[Job]
    parents: frozenset[str]
    """The ids of the pretraining runs that it waits for; those that are done are left out."""
    parallelism: int
    """How many of its jobs run at the same time."""

    def __str__(self) -> str:
        """`an array of 5, 2 at once, 20 runs, after 5 pretraining runs`."""
        count = sum(len(job.runs) for job in self.jobs)
        after = f", after {counted(len(self.parents), 'pretraining run')}" if self.parents else ""
        tasks = "a job" if len(self.jobs) == 1 else f"an array of {len(self.jobs)}, {self.parallelism} at once"
        return f"{tasks}, {counted(count, 'run')}{after}"


def job_arrays(grid: str, jobs: list[Job], *, waits_for: set[str], limit: int, parallelism: int) -> list[JobArray]:
    """The jobs as arrays of at most `limit` tasks, pretraining first; `waits_for` are the runs that are not done."""
    groups: dict[tuple[Any, ...], list[Job]] = {}
    for job in jobs:
        parents = frozenset(job.parents & waits_for)
        kind = ("pretrain",) if job.parts else (job.spec.dataset.name, method_of(job.spec))
        groups.setdefault((job.fan_out, kind, parents), []).append(job)
    out = []
    for (fan_out, kind, parents), group in groups.items():
        chunks = [group[start : start + limit] for start in range(0, len(group), limit)]
        for chunk in chunks:
            runs = [planned for job in chunk for planned in job.runs]
            name = ".".join([grid, *kind, *(["finetune"] if fan_out else []), seed_range(runs)])
            out.append(JobArray(name, chunk, parents, min(len(chunk), max(1, parallelism // len(chunks)))))
    return sorted(out, key=lambda array: array.jobs[0].fan_out)


def seed_range(runs: list[PlannedRun]) -> str:
    """The seeds of the runs as text: `s77`, `s77-81` or `s77,79`."""
    seeds = sorted({planned.spec.seed for planned in runs})
    if len(seeds) > 1 and seeds == list(range(seeds[0], seeds[-1] + 1)):
        return f"s{seeds[0]}-{seeds[-1]}"
    return "s" + ",".join(str(seed) for seed in seeds)
