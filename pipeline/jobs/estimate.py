"""What the runs to do in a plan will take, in GPU-hours and storage, before any of them is submitted.

Every number has a source (jobs/costs). Runs of which nothing is known are counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pipeline.jobs.arrays import Job, jobs_of, side_by_side
from pipeline.jobs.costs import FLOAT_BYTES, MODELLED, UNKNOWN, RunCosts, backbones_of
from pipeline.jobs.gpus import gpus_of_job, jobs_at_once
from pipeline.jobs.plan import TO_DO, Plan, PlannedRun
from pipeline.runs.cluster import VARIABLE, Cluster
from pipeline.runs.methods import method_info
from pipeline.runs.spec import FinetuneSpec, PretrainSpec, Spec
from pipeline.study import paper

DECODED = 1754  # images of 384 pixels a second, into a map on two cores (docs/benchmarks.md, Loading)
CHECKPOINTS = 3  # of one run, at the moment when it writes its third (docs/storage.md)


@dataclass
class KindHours:
    """The GPU-hours of all runs of one kind."""

    hours: float = 0.0
    runs: Counter[str] = field(default_factory=Counter)
    """How many runs have their hours from which source (`RunHours.source`)."""


@dataclass(kw_only=True)
class Estimate:
    """What is expected of the runs of a plan that are to do."""

    pretrain: KindHours = field(default_factory=KindHours)
    finetune: KindHours = field(default_factory=KindHours)
    """An upper bound: a fine-tune may stop early."""
    dino_excess: float = 0.0
    """GPU-hours too many in `pretrain` if Table 2's hours of DINO are those of both backbones, not of each."""
    hours_by_table_2: float = 0.0
    """GPU-hours by Table 2 of the pretraining runs that are modelled in `pretrain`."""
    gpu_model: str = ""
    """The GPU that is modelled."""
    final_bytes: int = 0
    """Weights, which stay; last checkpoints too, if the site keeps them."""
    peak_bytes: int = 0
    """Checkpoints of the runs that work at the same time, in addition to `final_bytes`."""
    unknown_sizes: tuple[str, ...] = ()
    """Backbones whose size nothing tells; their runs are in neither of the two."""
    jobs: int = 1
    """Jobs at the same time."""
    wall_hours: float = 0.0
    """Without the time in the queue, and as if as many jobs as fit were always at work."""
    map_hours: float = 0.0
    """GPU-hours in which jobs decode the images again because their scratch ends with them; they are in the others."""
    unit: str = "GPU-hours"


def estimate(plan: Plan, cluster: Cluster) -> Estimate:
    """What a launch would take; failed runs, which wait for `--retry`, are left out."""
    todo = plan.in_state(*TO_DO, "running", "no shards")
    out = Estimate(jobs=jobs_at_once(cluster), gpu_model=cluster.gpu_model)
    costs = RunCosts(plan, cluster, todo)
    unknown: set[str] = set()
    hours: dict[str, float] = {}
    checkpoints: dict[str, int] = {}
    on_cpu: set[bool] = set()
    for planned in todo:
        spec = planned.spec
        parameters = costs.parameters(spec)
        unknown |= {tag for tag in backbones_of(spec) if parameters is None and costs.sizes.get((tag,)) is None}
        checkpoint = ((parameters or 0) + last_layer(spec)) * FLOAT_BYTES * copies_in_checkpoint(spec)
        out.final_bytes += (parameters or 0) * FLOAT_BYTES * _copies_at_end(spec)
        if cluster.keep_state and isinstance(spec, PretrainSpec):
            out.final_bytes += checkpoint
        if planned.published_by:  # its hours are those of the longer run
            continue
        cost = costs.hours(spec)
        left = _part_left(planned)
        if cost.source == MODELLED and isinstance(spec, PretrainSpec):
            out.hours_by_table_2 += left * costs.hours_by_table_2(spec).hours
        kind = out.pretrain if isinstance(spec, PretrainSpec) else out.finetune
        kind.hours += left * cost.hours
        kind.runs[cost.source] += 1
        if cost.source != UNKNOWN:
            on_cpu.add(cost.on_cpu)
        out.dino_excess += left * cost.dino_excess
        hours[planned.run.id] = left * cost.hours
        checkpoints[planned.run.id] = checkpoint * CHECKPOINTS

    if cluster.device == "cpu" or on_cpu == {True}:
        out.unit = "hours"
    out.unknown_sizes = tuple(sorted(unknown))
    _count_jobs(out, todo, hours, checkpoints, costs)
    return out


def _count_jobs(
    out: Estimate,
    todo: Sequence[PlannedRun],
    hours: Mapping[str, float],
    checkpoints: Mapping[str, int],
    costs: RunCosts,
) -> None:
    """Count what runs take together, as jobs: a job keeps all its GPUs until its last run has ended."""
    cluster = costs.cluster
    jobs, gpus = jobs_of(todo), gpus_of_job(cluster)
    if cluster.executor == "slurm":
        jobs = side_by_side(jobs, cluster.slurm.runs_per_job)
    filling = [_map_hours(job, costs) if VARIABLE.search(cluster.scratch) else 0.0 for job in jobs]
    out.map_hours = gpus * sum(filling)
    wall = [_wall_hours(job, hours, cluster) + first for job, first in zip(jobs, filling, strict=True)]
    by_job = []
    for job, its_hours in zip(jobs, wall, strict=True):
        kind = out.finetune if job.fan_out else out.pretrain
        kind.hours += gpus * its_hours - sum(hours.get(planned.run.id, 0.0) for planned in job.runs)
        at_once = gpus * cluster.trials_per_gpu if job.fan_out else max(1, len(job.parts))
        sizes = sorted((checkpoints.get(planned.run.id, 0) for planned in job.runs), reverse=True)
        by_job.append(sum(sizes[:at_once]))
    out.peak_bytes = sum(sorted(by_job, reverse=True)[: out.jobs])
    out.wall_hours = max(sum(wall) / out.jobs, _longest_chain(jobs, wall))


def _copies_at_end(spec: Spec) -> int:
    """Copies of its parameters in a finished run's folder: averaged and last weights, else one; none of frozen ones."""
    if isinstance(spec, FinetuneSpec) and spec.probe:
        return 0
    return 2 if isinstance(spec, PretrainSpec) and spec.average else 1


def copies_in_checkpoint(spec: Spec) -> int:
    """Copies of its parameters in a checkpoint: the weights, Adam's two moments, and what the spec adds."""
    if isinstance(spec, FinetuneSpec):
        return 0 if spec.probe else 4  # the best weights so far
    teacher = method_info(spec.method.name).has_teacher
    return 3 + teacher + (spec.average is not None) + spec.keep_gradients


def last_layer(spec: Spec) -> int:
    """Parameters of DINO's last layer, which is as large as a backbone; its weights file has no such layer."""
    if not isinstance(spec, PretrainSpec) or not method_info(spec.method.name).has_teacher:
        return 0
    options = spec.method.options
    return int(options["out_dim"]) * int(options.get("bottleneck", options["hidden"]))


def _part_left(planned: PlannedRun) -> float:
    """The part of the run that is still to do, 0 to 1."""
    if planned.state not in ("interrupted", "running") or not (at := planned.run.progress()):
        return 1.0
    done: float = (at["epoch"] + at["step"] / max(1, at["steps"])) / at["epochs"]
    return max(0.0, 1 - done)


def _wall_hours(job: Job, hours: Mapping[str, float], cluster: Cluster) -> float:
    """How long a job takes: as many of its runs at a time as it has GPUs."""
    own = [hours.get(planned.run.id, 0.0) for planned in job.runs]
    at_once = gpus_of_job(cluster) if job.fan_out else max(1, len(job.parts))
    return max(max(own), sum(own) / at_once)


def _map_hours(job: Job, costs: RunCosts) -> float:
    """How long a job decodes the images of its runs before it trains."""
    seconds = 0.0
    for dataset, size in {(planned.spec.dataset, planned.spec.image_size) for planned in job.runs}:
        counts = costs.images(dataset, size)
        seconds += (counts[0] + counts[2]) * (size / paper.IMAGE_SIZE) ** 2 / DECODED if counts else 0.0
    return seconds / 3600


def _longest_chain(jobs: Sequence[Job], wall: Sequence[float]) -> float:
    """The hours of the longest chain of jobs: a fan-out after the longest pretraining job that it waits for."""
    of_run = {planned.run.id: hours for job, hours in zip(jobs, wall, strict=True) for planned in job.runs}
    before = [max((of_run.get(parent, 0.0) for parent in job.parents), default=0.0) for job in jobs]
    return max((own + waited for own, waited in zip(wall, before, strict=True)), default=0.0)


def gigabytes(count: float) -> str:
    """Bytes as text: `163 GB`, `0.8 GB`."""
    return f"{rounded(count / 1e9)} GB"


def rounded(value: float) -> str:
    """`less than 0.1`, `0.8`, `163`."""
    if 0 < value < 0.05:
        return "less than 0.1"
    return f"{value:,.0f}" if value >= 9.95 else f"{value:.1f}"
