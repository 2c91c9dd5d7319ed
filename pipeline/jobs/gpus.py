"""Which GPUs a process may use. Nothing here imports torch."""

from __future__ import annotations

import os
import re
import subprocess
from collections import Counter
from pathlib import Path

from pipeline.runs.cluster import Cluster, Slurm

NODE = "CASS_PIPELINE_NODE"  # environment variable: this node, as `scontrol show node` prints it
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
    """How the site tells this node's GPUs, of this model, from others: `gres:rtx8000`, else `feature:a100`.

    Empty outside a job, or where neither does.
    """
    node = dict(reversed(re.findall(r"(\w+)=(\S*)", os.environ.get(NODE, ""))))  # what is free text comes last
    kinds = sorted({kind for name, kind in parse_gres(node.get("Gres", "")) if name == "gpu" and kind})
    if len(kinds) == 1:
        return f"gres:{kinds[0]}"
    if fitting := [kind for kind in kinds if _names(kind, model)]:
        return f"gres:{max(fitting, key=len)}"
    features = [name for name in node.get("AvailableFeatures", "").split(",") if _names(name, model)]
    return f"feature:{max(features, key=len)}" if features else ""


def _names(word: str, model: str) -> bool:
    """Whether a word such as `a100` or `rtx_8000` is in the name of a GPU model."""
    plain, whole = (re.sub(r"[\W_]", "", text.lower()) for text in (word, model))
    return any(map(str.isdigit, plain)) and plain in whole


def request_of(name: str, slurm: Slurm) -> str:
    """What `scontrol update` takes, so that a job gets a GPU of this name (`name_in_slurm`); empty if nothing does."""
    kind, _, value = name.partition(":")
    if kind == "feature":
        plain = not slurm.constraint or re.fullmatch(r"[\w.:+=&-]+", slurm.constraint)
        return f"Features={slurm.constraint}&{value}".replace("=&", "=") if plain else ""
    wanted = parse_gres(slurm.gres)
    if not value or not any(name == "gpu" for name, _ in wanted):
        return ""
    typed = {(name, value if name == "gpu" else its): count for (name, its), count in wanted.items()}
    return "Gres=" + ",".join(":".join(filter(None, (*key, str(count)))) for key, count in typed.items())
