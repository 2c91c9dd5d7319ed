"""What a run computes on: device, precision and threads, fixed at its first start."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from pipeline.core import memory
from pipeline.runs.cluster import Cluster


@dataclass(frozen=True, kw_only=True)
class Hardware:
    """The facts that a run's bits depend on in addition to its spec."""

    device: str
    """`cpu` or `cuda`."""
    model: str
    """The device's name, e.g. `Quadro RTX 8000`."""
    precision: str
    threads: int

    @property
    def torch_device(self) -> torch.device:
        return torch.device(self.device)

    def autocast(self) -> Any:
        """The context of a forward pass in this precision."""
        dtype = getattr(torch, self.precision)
        return torch.autocast(self.device, dtype=dtype, enabled=dtype != torch.float32)

    def scaler(self) -> torch.amp.GradScaler:
        """A gradient scaler, active in float16 only."""
        return torch.amp.GradScaler(self.device, enabled=self.precision == "float16")


def choose(cluster: Cluster, precision: str) -> Hardware:
    """The hardware of a first start: what the cluster file asks for, with "auto" resolved by the GPU that is here."""
    device = cluster.device if cluster.device != "auto" else ("cuda" if torch.cuda.is_available() else "cpu")
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError(
            "the cluster file asks for device cuda, but torch sees no GPU here; check the driver or the job"
        )
    if device == "cuda":
        check_built_for(torch.cuda.get_device_capability(), torch.cuda.get_arch_list())
    wanted = precision if precision != "auto" else cluster.precision
    if wanted == "auto":
        wanted = best_precision(torch.cuda.get_device_capability()) if device == "cuda" else "float32"
    model = torch.cuda.get_device_name() if device == "cuda" else cpu_model()
    return Hardware(device=device, model=model, precision=wanted, threads=cluster.threads)


def check_built_for(capability: tuple[int, int], built: Sequence[str]) -> None:
    """`ValueError` for a GPU that is older than every architecture torch was built for (`["sm_75", …]`)."""
    known = [int(name[3:]) for name in built if re.fullmatch(r"sm_\d+", name)]
    mine = 10 * capability[0] + capability[1]
    if known and mine < min(known):
        raise ValueError(
            f"this GPU is sm_{mine}, torch {torch.__version__} is built for sm_{min(known)} and newer; "
            "install a torch that still supports it, or use another GPU"
        )


def best_precision(capability: tuple[int, int]) -> str:
    """The fastest precision a GPU computes natively: Turing and Volta emulate bfloat16, older ones gain nothing from
    16 bits."""
    if capability >= (8, 0):
        return "bfloat16"
    return "float16" if capability >= (7, 0) else "float32"


def to_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A CPU tensor on the device; the host does not wait for the work that is queued there."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def reset_peak_memory(hardware: Hardware) -> None:
    """Begin to watch for the most of the GPU's memory that this process uses."""
    if hardware.device == "cuda":
        torch.cuda.reset_peak_memory_stats()


def peak_memory(hardware: Hardware) -> dict[str, int]:
    """The most bytes of the GPU since then: `allocated` by tensors, `reserved` by torch; empty on a CPU."""
    if hardware.device != "cuda":
        return {}
    return {"allocated": torch.cuda.max_memory_allocated(), "reserved": torch.cuda.max_memory_reserved()}


def cpu_model() -> str:
    """The processor's name as the system gives it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def make_deterministic(hardware: Hardware) -> None:
    """Make this process compute deterministically with the run's threads; call it before any tensor work."""
    os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"  # other settings may choose other algorithms
    torch.set_num_threads(hardware.threads)
    torch.use_deterministic_algorithms(True)
    # no code here reads memory that it did not write
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    memory.keep_freed_memory()
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.allow_tf32 = False  # float32 means float32, in convolutions
    torch.backends.cuda.matmul.allow_tf32 = False  # and in multiplications, whatever the environment says
