"""The limits of a device: each arm trained alone, the arithmetic of both arms, and matrix multiplication."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator, Sequence
from functools import cache

import torch
from torch.utils.flop_counter import FlopCounterMode

from pipeline.benchmarks.support.training import WARMUP_STEPS, network, wait
from pipeline.learn import optim
from pipeline.learn.hardware import Hardware
from pipeline.study import paper


class SingleArm:
    """One backbone trained alone on a batch in memory: forward, backward and optimizer, nothing else."""

    def __init__(
        self,
        backbone: paper.Backbone,
        hardware: Hardware,
        *,
        size: int,
        batch: int,
        channels_last: bool,
        compiled: bool,
    ) -> None:
        self.hardware = hardware
        layout = torch.channels_last if channels_last else torch.contiguous_format
        self.network = network(backbone.tag, size).to(hardware.torch_device, memory_format=layout)  # type: ignore[call-overload]
        self.images = torch.randn(batch, 3, size, size, device=hardware.torch_device).to(memory_format=layout)
        self.optimizer = optim.build(paper.PRETRAIN_OPTIM, self.network.parameters())
        self.scaler = hardware.scaler()
        if compiled:
            self.network.compile(dynamic=False)

    def seconds(self, steps: int) -> float:
        """The mean seconds of a step, without the first `WARMUP_STEPS`, with any algorithms."""
        with any_algorithms():
            for _ in range(WARMUP_STEPS):
                self.step()
            wait(self.hardware.torch_device)
            started = time.perf_counter()
            for _ in range(steps):
                self.step()
            wait(self.hardware.torch_device)
        return (time.perf_counter() - started) / steps

    def step(self) -> None:
        self.optimizer.zero_grad()
        with self.hardware.autocast():
            loss = self.network(self.images).float().square().mean()
        torch.autograd.backward(self.scaler.scale(loss))
        self.scaler.step(self.optimizer)
        self.scaler.update()


@cache
def can_compile(device: str) -> bool:
    """Whether torch.compile works: only on a recent GPU, with a C compiler and Python's headers."""
    if device != "cuda":
        return False
    try:
        torch.compile(torch.sin, dynamic=False)(torch.zeros(8, device=device))
    except Exception as error:  # of any kind, from Triton and its tools
        print(f"  torch cannot compile here: {type(error).__name__}", file=sys.stderr, flush=True)
        return False
    return True


def gigaflops(pair: Sequence[paper.Backbone], size: int) -> float:
    """GFLOP of one training image in all networks of `pair`, forward and backward, as torch counts them."""
    total = 0
    for backbone in pair:
        # in evaluation mode: the batch norm of one image has no statistics
        counted = network(backbone.tag, size).to("meta").eval()
        with FlopCounterMode(display=False) as counter:
            torch.autograd.backward(counted(torch.empty(1, 3, size, size, device="meta")).sum())
        total += counter.get_total_flops()
    return total / 1e9


def teraflops(hardware: Hardware, side: int, seconds: float) -> float:
    """TFLOP/s of multiplying side × side matrices for about `seconds`, in the precision of a run."""
    dtype = getattr(torch, hardware.precision)
    left, right = (torch.randn(side, side, device=hardware.torch_device, dtype=dtype) for _ in range(2))
    out = left @ right
    wait(hardware.torch_device)
    started, done = time.perf_counter(), 0
    while time.perf_counter() - started < seconds:
        for _ in range(8):
            torch.mm(left, right, out=out)
        wait(hardware.torch_device)
        done += 8
    return done * 2 * side**3 / (time.perf_counter() - started) / 1e12


@contextlib.contextmanager
def any_algorithms() -> Iterator[None]:
    """Allow algorithms that are not deterministic: cuDNN tries all and takes the fastest."""
    before = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark
    torch.use_deterministic_algorithms(False)
    torch.backends.cudnn.benchmark = True
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0])
        torch.backends.cudnn.benchmark = before[1]
