"""What `make gpu` measured on a GPU, as the estimates of time and memory use it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pipeline.core import files
from pipeline.runs.cluster import Cluster


@dataclass(frozen=True, kw_only=True)
class Measured:
    """The measures of one GPU."""

    gpu: str
    """The GPU's name; empty: nothing was measured."""
    teraflops: Mapping[str, float]
    """TFLOP/s that the step of CASS reached, its loading included where that was measured, by precision."""
    reserved: Mapping[tuple[str, int], int]
    """Bytes that torch reserved, by kind of run (`footprints.key_of`) and batch."""


def of_cluster(cluster: Cluster) -> Measured:
    """What the cluster file's JSON says; raises `ValueError` where the file is missing or another one."""
    if not cluster.gpu_measured:
        return Measured(gpu="", teraflops={}, reserved={})
    path = Path(cluster.gpu_measured).expanduser()
    move = "give the gpu.json of make gpu, or leave gpu_measured out"
    if not path.is_file():
        raise ValueError(f"gpu_measured is {path}, which does not exist; {move}")
    with files.reading(path, move):
        model = files.read_json(path, dict)["model"]
        return Measured(
            gpu=str(model["gpu"] or ""),
            teraflops={name: float(value) for name, value in model["teraflops"].items()},
            reserved={(str(kind), int(batch)): int(count) for kind, batch, count in model["reserved"]},
        )
