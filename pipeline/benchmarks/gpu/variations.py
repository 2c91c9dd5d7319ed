"""The ways in which a GPU can take a step of CASS, one row of `make gpu`'s table each."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.benchmarks import step
from pipeline.benchmarks.support import limits
from pipeline.learn.methods.cass import Cass
from pipeline.learn.pretrain import Pretraining

TF32_FROM = (8, 0)
"""Compute capability of the first GPUs that have TF32; they are also the first that compute bfloat16 natively."""


@dataclass(frozen=True, kw_only=True)
class Variation:
    """One row of the table. As it is by default, it is the project's step with its batch in memory."""

    name: str
    precision: str = ""
    """Empty: what the GPU computes best."""
    batch: int = step.BATCH
    loading: bool = False
    plain: bool = False
    """The reference's style: another loop, in a process of its own."""
    tf32: bool = False
    channels_last: bool = False
    streams: bool = False
    compiled: bool = False
    graphs: bool = False
    """The forward and backward pass replayed as one CUDA graph (`cuda_graphs` in a cluster file)."""
    any_algorithms: bool = False

    def lacks(self, device: str) -> str:
        """Why it cannot be measured on the device; empty if it can."""
        only_gpu = self.tf32 or self.streams or self.compiled or self.precision == "float16"
        if device == "cpu":
            return "needs a GPU" if only_gpu else ""
        if (self.tf32 or self.precision == "bfloat16") and torch.cuda.get_device_capability() < TF32_FROM:
            return "needs compute capability 8.0"
        if self.compiled and not limits.can_compile(device):
            return "torch cannot compile here"
        return ""


OURS, LOADED = Variation(name="ours"), Variation(name="ours, with its loading", loading=True)
GRAPH = Variation(name="ours, as a CUDA graph", graphs=True)
PLAIN = Variation(name="reference's style", plain=True)
PLAIN_LOADED = Variation(name="reference's style, with its loader", plain=True, loading=True)
VARIATIONS = (
    OURS,
    LOADED,
    PLAIN_LOADED,
    PLAIN,
    Variation(name="ours, batches of 32", batch=32),
    Variation(name="ours, batches of 64", batch=64),
    Variation(name="ours, float32", precision="float32"),
    Variation(name="ours, float32 with TF32", precision="float32", tf32=True),
    Variation(name="ours, float16", precision="float16"),
    Variation(name="ours, bfloat16", precision="bfloat16"),
    Variation(name="ours, CNN in channels_last", channels_last=True),
    Variation(name="ours, an arm a stream", streams=True),
    GRAPH,
    Variation(name="ours, any algorithms", any_algorithms=True),
    Variation(name="ours, channels_last, any algorithms", channels_last=True, any_algorithms=True),
    Variation(name="ours, both arms compiled", compiled=True),  # takes minutes before its first step
)


class TwoStreams(Cass):
    """CASS whose second arm has a stream of its own."""

    def __init__(self, other: Cass) -> None:
        super().__init__(dict(other.networks.items()), other.augmentation)
        self.side = torch.cuda.Stream()  # type: ignore[no-untyped-call]

    def loss(self, *inputs: Tensor) -> dict[str, Tensor]:
        (images,) = inputs
        first, second = self.networks.values()
        here = torch.cuda.current_stream()
        self.side.wait_stream(here)
        with torch.cuda.stream(self.side):
            t = second(images)
        r = first(images)
        here.wait_stream(self.side)
        images.record_stream(self.side)
        with torch.autocast(images.device.type, enabled=False):
            return self.scalars(r, t)


def change(program: Pretraining, variation: Variation) -> None:
    """Make the program train in the variation's way."""
    method = program.method
    assert isinstance(method, Cass)
    if variation.tf32:
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    if variation.channels_last:
        next(iter(method.networks.values())).to(memory_format=torch.channels_last)
    if variation.streams:
        program.method = program.module = TwoStreams(method)
    if variation.compiled:
        for network in method.networks.values():
            network.compile(dynamic=False)
