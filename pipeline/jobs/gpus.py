"""Which GPUs a process may use. Nothing here imports torch."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from pipeline.runs.cluster import Cluster

VISIBLE = "CASS_PIPELINE_VISIBLE_DEVICES"  # CUDA_VISIBLE_DEVICES of a job on this machine; "all": it is unset


def gpus(cluster: Cluster) -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    if cluster.device == "cpu":
        return []
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        names = [name.strip() for name in visible.split(",")]
        return [name for name in names if name and name != "-1"]
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=20).stdout
        return [str(i) for i, _ in enumerate(line for line in listed.splitlines() if line.startswith("GPU "))]
    except (OSError, subprocess.TimeoutExpired):  # no tool, as in some containers; the driver lists them too
        return [str(i) for i, _ in enumerate(Path("/proc/driver/nvidia/gpus").glob("*"))]


def jobs_at_once(cluster: Cluster) -> int:
    """How many jobs the executor runs at the same time."""
    if cluster.executor == "slurm":
        return cluster.slurm.parallelism
    return cluster.jobs or max(1, len(gpus(cluster)))


def use_assigned_gpu() -> None:
    """Use the GPU that a launch on this machine gave to this job: submitit numbers GPUs from 0, or hides them all."""
    visible = os.environ.pop(VISIBLE, None)
    if visible == "all":
        os.environ.pop("CUDA_VISIBLE_DEVICES", None)
    elif visible is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = visible
