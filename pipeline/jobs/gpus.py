"""Which GPUs a process may use. Nothing here imports torch."""

from __future__ import annotations

import os
import re
import subprocess
from collections import Counter
from pathlib import Path

from pipeline.runs.cluster import Cluster, Slurm

NODES = "CASS_PIPELINE_NODES"  # environment variable: a line `gres|features|nodes` of this node, then the partition's
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


def gpus_of_job(cluster: Cluster) -> int:
    """How many GPUs a job of this site has, by what it requests; 1 where it requests none by name."""
    if cluster.executor != "slurm":
        return 1
    return max(1, sum(count for (name, _), count in parse_gres(cluster.slurm.gres).items() if name == "gpu"))


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


# --- In Slurm's words ------------------------------------------------------------------------------------------------


def parse_gres(text: str) -> Counter[tuple[str, str]]:
    """Counts by (name, type) of `gpu:a100:4(S:0-1),mps:400`. A missing type is empty, a missing count is 1."""
    out: Counter[tuple[str, str]] = Counter()
    for entry in re.sub(r"\([^)]*\)", "", text).split(","):
        name, *rest = entry.strip().removeprefix("gres/").replace("=", ":").split(":")
        rest = [part for part in rest if part != "no_consume"]
        count = int(rest.pop()) if rest and rest[-1].isdigit() else 1
        if name:
            out[name, rest[0] if rest else ""] += count
    return out


def name_in_slurm(model: str) -> str:
    """How the site tells the GPUs of this node, of this model, from others: `gres:rtx8000`, else `feature:a100`.

    Empty outside a job, or where neither does, as on a node with several types.
    """
    this, _ = _nodes()
    kinds, features, _ = this or (set(), [], "")
    if len(kinds) == 1:
        return f"gres:{min(kinds)}"
    fitting = [name for name in features if _is_in(name, model)] if not kinds else []
    return f"feature:{max(fitting, key=len)}" if fitting else ""


def request_of(name: str, slurm: Slurm) -> str:
    """What `scontrol update` takes, so that a job keeps to the nodes whose GPUs have this name; empty if none has.

    It excludes the others: Slurm (22.05) refuses a type for a pending job that requested none.
    """
    kind, _, value = name.partition(":")
    _, partition = _nodes()
    others = [
        nodes
        for kinds, features, nodes in partition
        if not (kinds == {value} if kind == "gres" else not kinds and value in features)
    ]
    if not name or len(others) == len(partition):
        return ""
    excluded = [flag.partition("=")[2] for flag in slurm.sbatch if flag.startswith("exclude=")]
    return "ExcNodeList=" + ",".join([*excluded, *others])


Kind = tuple[set[str], list[str], str]
"""Types of GPU, features and names of nodes."""


def _nodes() -> tuple[Kind | None, list[Kind]]:
    """This node, None where Slurm did not say; and all kinds of node in the partition."""

    def kind(line: str) -> Kind:
        gres, features, nodes = line.split("|")
        return {kind for name, kind in parse_gres(gres) if name == "gpu" and kind}, features.split(","), nodes.strip()

    this, *partition = os.environ.get(NODES, "").split("\n")
    return kind(this) if this.count("|") == 2 else None, [kind(line) for line in partition if line.count("|") == 2]


def _is_in(word: str, model: str) -> bool:
    """Whether a word such as `a100` or `rtx_8000` is part of the name of a GPU model."""
    plain, whole = (re.sub(r"[\W_]", "", text.lower()) for text in (word, model))
    return any(map(str.isdigit, plain)) and plain in whole
