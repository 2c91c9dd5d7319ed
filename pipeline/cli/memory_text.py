"""The memory of a plan's runs as text."""

from __future__ import annotations

from pipeline.core.console import counted, table
from pipeline.jobs.estimate import gigabytes
from pipeline.jobs.footprints import key_of, known
from pipeline.jobs.memory import (
    COMPARED_BATCH,
    CONTEXT,
    SLACK,
    WORKSPACE,
    HostMemory,
    RunMemory,
    capacity_of,
    host_memory,
    memory_of,
)
from pipeline.jobs.plan import Plan
from pipeline.runs.spec import DatasetRef
from pipeline.study import paper, recipes

HEADER = ("needs of the GPU", "runs", "batch", "precision", "GB", "source", f"batch {COMPARED_BATCH}", "largest batch")


def memory_text(plan: Plan) -> str:
    """A line for each kind of run; empty where the GPU's memory is not known or nothing is to do."""
    kinds = memory_of(plan, plan.cluster)
    if not kinds:
        return ""
    rows = [[*_row(kind)] for kind in kinds]
    lines = [table(rows, header=(*HEADER, "at once"))]
    gpu = f"{plan.cluster.gpu_model or 'a GPU'} of {capacity_of(plan.cluster) / 1e9:g} GB"
    lines.append(
        f"memory: {gpu}; counted on pretended tensors, and ASSUMED until a run is measured: {gigabytes(CONTEXT)} of "
        f"context, {gigabytes(WORKSPACE)} of workspaces, {SLACK:.0%} for the allocator"
    )
    lacking = [kind for kind in kinds if kind.footprint and kind.footprint.evaluation is None]
    if lacking:
        which = f"{len(lacking)} of {counted(len(kinds), 'kind')}"
        lines.append(f"of {which} a training step is counted and evaluation is not")
    lines += _proposals(kinds)
    lines += _papers_batch()
    lines += _host(host_memory(plan, plan.cluster), plan)
    return "\n".join(lines) + "\n"


def _row(kind: RunMemory) -> tuple[object, ...]:
    other = kind.counted(COMPARED_BATCH)
    compared = "?" if other is None else _gb(other) + (" too large" if other > kind.capacity else "")
    source = "measured" if kind.measured is not None else "counted" if kind.footprint else "not counted"
    needed, largest = kind.bytes, kind.largest_batch
    at_once = kind.at_once if kind.is_finetune else ""
    cells = (kind.title, kind.runs, kind.batch, kind.precision, "?" if needed is None else _gb(needed), source)
    return (*cells, compared, "?" if largest is None else largest, "?" if at_once is None else at_once)


def _gb(count: int) -> str:
    return f"{count / 1e9:.1f}"


def _proposals(kinds: list[RunMemory]) -> list[str]:
    """How many trials fit, by memory."""
    fits = [kind.at_once for kind in kinds if kind.is_finetune and kind.at_once is not None]
    if not fits:
        return []
    return [
        f"trials_per_gpu: up to {min(fits)} of every kind of fine-tune fit; which number is fastest, bench fanout says"
    ]


def _papers_batch() -> list[str]:
    """The one number that the paper gives, next to what is counted."""
    spec = recipes.cass(DatasetRef(name="", fingerprint=""), preset=paper.preset("paper"), seed=0)
    found = known()
    ours, theirs = (found.get(key_of(spec, "float32", plain=plain)) for plain in (False, True))
    if ours is None or theirs is None:
        return []
    batch = paper.LARGEST_BATCH
    return [
        f"the paper's largest batch of CASS is {batch} on 48 GB (C.1); counted in float32: {_gb(ours.at(batch))} GB, "
        f"{_gb(theirs.at(batch))} GB where attention keeps its matrix, as in the paper's torch"
    ]


def _host(host: HostMemory | None, plan: Plan) -> list[str]:
    if host is None:
        return []
    parts = f"{gigabytes(host.processes)} of processes ASSUMED"
    parts += f", {gigabytes(host.ray)} of Ray ASSUMED" * bool(host.ray)
    parts += f", {gigabytes(host.checkpoints)} of page-locked copies for checkpoints"
    asked = f", of memory_gb = {plan.cluster.slurm.memory_gb:g}" if plan.cluster.executor == "slurm" else ""
    pixels = f"; and {gigabytes(host.pixel_map)} of decoded images as page cache" if host.pixel_map else ""
    return [f"host memory: up to {gigabytes(host.bytes)} a job{asked} ({parts}){pixels}"]
