"""What the runs of a plan need of a GPU's memory and of the host's, and which of them cannot fit.

A finished run of the same kind and batch tells it; else it is counted on pretended tensors (jobs/footprints) and what
cannot be counted is ASSUMED.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.jobs.costs import UNREADABLE, RunCosts, finished_runs, workload_of
from pipeline.jobs.estimate import gigabytes
from pipeline.jobs.footprints import Footprint, is_counted, key_of, known
from pipeline.jobs.gpus import gpus_of_job
from pipeline.jobs.measured import of_cluster
from pipeline.jobs.plan import TO_DO, Plan, PlannedRun
from pipeline.runs.cluster import GPU_MEMORY_GB, GPU_PRECISIONS, Cluster
from pipeline.runs.methods import method_info
from pipeline.runs.result import Result
from pipeline.runs.spec import FinetuneSpec, PretrainSpec, Spec
from pipeline.study import paper

# ASSUMED until a run is measured on the GPU:
CONTEXT = 600_000_000  # bytes of a process's CUDA context and its kernels
WORKSPACE = 500_000_000  # bytes of the workspaces of cuBLAS and cuDNN
SLACK = 0.1  # of what is counted: rounding and gaps of torch's allocator
# ASSUMED of the host:
PROCESS = 4_000_000_000  # bytes of a process with torch, timm and CUDA
RAY = 1_500_000_000  # bytes of Ray's own processes in a fan-out
COMPARED_BATCH = 64  # for which the text says whether it would fit


@dataclass(frozen=True, kw_only=True)
class RunMemory:
    """What runs of one kind and batch need."""

    title: str
    batch: int
    precision: str
    is_finetune: bool
    footprint: Footprint | None
    """None: not counted yet."""
    measured: int | None
    """Bytes that torch reserved in a finished run of the same kind and batch, on whichever GPU."""
    runs: int
    """How many of the plan are such."""
    capacity: float
    """Bytes of the GPU."""
    cuda_graphs: bool

    @property
    def bytes(self) -> int | None:
        """Of the GPU, by a run."""
        if self.measured is not None:
            return self.measured + CONTEXT
        return self.counted(self.batch)

    def counted(self, batch: int) -> int | None:
        """Of the GPU with another batch, by the model."""
        if self.footprint is None:
            return None
        return CONTEXT + WORKSPACE + int((1 + SLACK) * self.footprint.at(batch, cuda_graphs=self.cuda_graphs))

    @property
    def largest_batch(self) -> int | None:
        """The largest batch that fits by the model; 0: not even one image does."""
        if self.footprint is None:
            return None
        room = (self.capacity - CONTEXT - WORKSPACE) / (1 + SLACK) - self.footprint.fixed
        evaluation = self.footprint.evaluation or 0
        if self.cuda_graphs:
            room, evaluation = room - evaluation, 0
        least = max(self.footprint.weights, evaluation)
        return int(room // self.footprint.per_image) if room >= least else 0

    @property
    def at_once(self) -> int | None:
        """How many such runs fit into the GPU at the same time."""
        return None if self.bytes is None else int(self.capacity // self.bytes)


def capacity_of(cluster: Cluster) -> float:
    """Bytes of the cluster file's GPU; 0 where it names none or runs use the CPU."""
    if cluster.device == "cpu":
        return 0.0
    return 1e9 * (cluster.gpu_memory_gb or GPU_MEMORY_GB.get(cluster.gpu_model, 0.0))


def precision_of(spec: Spec, cluster: Cluster) -> str:
    """What the run computes in; on a GPU whose model is not named, `auto` counts as float32, which takes the most."""
    named = spec.precision if spec.precision != "auto" else cluster.precision
    return named if named != "auto" else GPU_PRECISIONS.get(cluster.gpu_model, "float32")


def to_count(plan: Plan, cluster: Cluster) -> list[tuple[Spec, str]]:
    """What `footprints.count_missing` is asked for."""
    return (
        [(planned.spec, precision_of(planned.spec, cluster)) for planned in _to_do(plan)]
        if capacity_of(cluster)
        else []
    )


def _to_do(plan: Plan) -> Iterable[PlannedRun]:
    return (planned for planned in plan.in_state(*TO_DO, "running", "no shards") if is_counted(planned.spec))


def memory_of(plan: Plan, cluster: Cluster) -> list[RunMemory]:
    """Each kind and batch of the runs to do, pretraining first; empty where the GPU's memory is not known."""
    capacity = capacity_of(cluster)
    todo = list(_to_do(plan))
    if not capacity or not todo:
        return []
    groups: dict[tuple[str, int], list[Spec]] = {}
    for planned in todo:
        spec = planned.spec
        groups.setdefault((key_of(spec, precision_of(spec, cluster)), spec.batch_size), []).append(spec)
    footprints, measured = known(), measured_of(plan, cluster, (specs[0] for specs in groups.values()))
    return [
        RunMemory(
            title=title_of(specs[0]),
            batch=batch,
            precision=precision_of(specs[0], cluster),
            is_finetune=isinstance(specs[0], FinetuneSpec),
            footprint=footprints.get(key),
            measured=measured.get((key, batch)),
            runs=len(specs),
            capacity=capacity,
            cuda_graphs=cluster.cuda_graphs,
        )
        for (key, batch), specs in groups.items()
    ]


def title_of(spec: Spec) -> str:
    """A kind of run for people: `CASS, ResNet-50 + ViT B/16`."""
    titles = {backbone.tag: backbone.title for backbone in paper.BACKBONES}
    tags = [arm.backbone for arm in spec.arms] if isinstance(spec, PretrainSpec) else [spec.backbone]
    kind = method_info(spec.method.name).title if isinstance(spec, PretrainSpec) else "fine-tune"
    return f"{kind}, {' + '.join(titles.get(tag, tag.split('.')[0]) for tag in tags)}"


def measured_of(plan: Plan, cluster: Cluster, specs: Iterable[Spec]) -> Mapping[tuple[str, int], int]:
    """The most that finished runs, or `make gpu`, reserved, by kind and batch."""
    out = dict(of_cluster(cluster).reserved)
    for run, spec in finished_runs(plan, Path(cluster.runs), {workload_of(spec) for spec in specs}):
        try:
            result: Result = run.result()
            reserved = result.gpu_memory.get("reserved", 0)
            key = key_of(spec, result.precision), spec.batch_size
        except (OSError, *UNREADABLE):  # there are others
            continue
        if reserved:
            out[key] = max(out.get(key, 0), reserved)
    return out


# --- What does not fit -----------------------------------------------------------------------------------------------


def problems(plan: Plan, cluster: Cluster) -> list[str]:
    """The kinds of run that cannot fit into the GPU or the job, one line each."""
    has = f"the {capacity_of(cluster) / 1e9:g} GB of {cluster.gpu_model or 'the GPU'}"
    out = []
    for kind in memory_of(plan, cluster):
        counted = kind.counted(kind.batch)
        if kind.bytes is None or counted is None:
            continue
        needed = min(kind.bytes, counted)  # torch keeps what it can get: what it reserved is no least
        if needed > kind.capacity:
            fits = f"the largest that fits is {kind.largest_batch}" if kind.largest_batch else "no batch fits"
            out.append(
                f"{kind.title}: a batch of {kind.batch} in {kind.precision} needs {gigabytes(needed)} of {has}; "
                f"{fits}: give the spec smaller batches, or use a GPU with more memory"
            )
        elif kind.is_finetune and needed * cluster.trials_per_gpu > kind.capacity:
            out.append(
                f"trials_per_gpu is {cluster.trials_per_gpu}: {kind.title} in batches of {kind.batch} needs "
                f"{gigabytes(needed)} of {has} each; set trials_per_gpu to {int(kind.capacity // needed)}"
            )
    host = host_memory(plan, cluster)
    on_gpu = cluster.executor == "slurm" and cluster.device != "cpu"
    if host and on_gpu and host.bytes > 2**30 * cluster.slurm.memory_gb:
        out.append(
            f"memory_gb is {cluster.slurm.memory_gb:g}, and a job needs {gigabytes(host.bytes)} of the host's memory; "
            "request more, or lower trials_per_gpu"
        )
    return out


@dataclass(frozen=True, kw_only=True)
class HostMemory:
    """What the largest job needs of the host's memory, in bytes."""

    processes: int
    checkpoints: int
    """Copies of the state from which checkpoints are written, page-locked."""
    ray: int
    pixel_map: int
    """Decoded images of training and validation, in the page cache: the kernel takes it back when memory is short."""

    @property
    def bytes(self) -> int:
        """Without the page cache."""
        return self.processes + self.checkpoints + self.ray


def host_memory(plan: Plan, cluster: Cluster) -> HostMemory | None:
    """Of the job that needs most, and the largest pixel map; None where no run is counted."""
    footprints, images = known(), RunCosts(plan, cluster, ()).images
    jobs = []
    for planned in _to_do(plan):
        spec = planned.spec
        footprint = footprints.get(key_of(spec, precision_of(spec, cluster)))
        if footprint is None:
            continue
        trials = cluster.slurm.runs_per_job if cluster.executor == "slurm" else 1
        if isinstance(spec, FinetuneSpec):
            trials = cluster.trials_per_gpu * gpus_of_job(cluster)
        counts = images(spec.dataset, spec.image_size)
        jobs.append(
            HostMemory(
                processes=trials * PROCESS,
                checkpoints=trials * footprint.state,
                ray=RAY if cluster.ray and isinstance(spec, FinetuneSpec) else 0,
                pixel_map=(counts[0] + counts[2] if counts else 0) * spec.image_size**2 * 3,
            )
        )
    if not jobs:
        return None
    return replace(max(jobs, key=lambda job: job.bytes), pixel_map=max(job.pixel_map for job in jobs))
