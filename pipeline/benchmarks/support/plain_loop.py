"""A plain training loop as a peer, like the reference's notebook: SIZE STEPS BATCH THREADS DEVICE TAG TAG [RAW].

It runs in a process of its own, with two networks, torch's own optimizers and schedules, and `loss.item()` per step;
torch has its default settings. It prints the mean seconds of a step, and the peak memory on a GPU in bytes. Batches
come from the files below RAW, loaded as the paper does; without RAW there is one batch in memory, augmented already.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from itertools import islice, repeat
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pipeline.benchmarks.support.paper_loader import batches
from pipeline.benchmarks.support.training import WARMUP_STEPS, network
from pipeline.study import paper


def seconds_a_step(**how: Any) -> float:
    """The seconds of a step, see `measure`."""
    return measure(**how)[0]


def measure(
    *, size: int, steps: int, batch: int, threads: int, device: str, pair: Sequence[paper.Backbone], raw: Path | None
) -> tuple[float, int]:
    """Run the loop in its own process; returns what it prints: the seconds of a step, and the peak memory of a GPU."""
    words: list[str | Path | int] = [size, steps, batch, threads, device, *(backbone.tag for backbone in pair)]
    command = [sys.executable, "-m", __name__, *map(str, words), *([str(raw)] if raw else [])]
    ours = "CUBLAS_WORKSPACE_CONFIG"  # set in this process by `learn/hardware`
    environment = {name: value for name, value in os.environ.items() if name != ours}
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    seconds, peak = done.stdout.split()[-2:]
    return float(seconds), int(peak)


class PlainLoop:
    """Two networks that learn to agree, trained one `step` at a time."""

    def __init__(self, size: int, device: str, tags: Sequence[str]) -> None:
        self.device = device
        self.networks = [network(tag, size).to(device) for tag in tags]
        optim = paper.PRETRAIN_OPTIM
        self.optimizers = [torch.optim.Adam(network.parameters(), lr=optim.lr) for network in self.networks]
        self.schedules = [
            torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, optim.t_max, eta_min=optim.min_lr)
            for optimizer in self.optimizers
        ]

    def seconds_a_step(self, source: Iterable[Tensor], steps: int) -> float:
        """The mean seconds from the start of a step to the start of the next, without the first `WARMUP_STEPS`."""
        starts = []
        for images in islice(source, steps):
            starts.append(time.perf_counter())
            self.step(images.to(self.device))
        return (starts[-1] - starts[WARMUP_STEPS]) / (len(starts) - 1 - WARMUP_STEPS)

    def step(self, images: Tensor) -> float:
        for optimizer in self.optimizers:
            optimizer.zero_grad()
        first, second = (torch.nn.functional.normalize(network(images), dim=-1) for network in self.networks)
        loss = (2 - 2 * (first * second).sum(dim=-1)).mean()
        torch.autograd.backward(loss)
        for optimizer, schedule in zip(self.optimizers, self.schedules, strict=True):
            optimizer.step()
            schedule.step()
        return loss.item()


def main() -> None:
    size, steps, batch, threads = map(int, sys.argv[1:5])
    device, tags, raw = sys.argv[5], sys.argv[6:8], sys.argv[8:]
    torch.set_num_threads(threads)
    source = (
        batches(Path(raw[0]), size=size, batch=batch) if raw else repeat(torch.randn(batch, 3, size, size).to(device))
    )
    seconds = PlainLoop(size, device, tags).seconds_a_step(source, steps)
    print(seconds, torch.cuda.max_memory_allocated() if device == "cuda" else 0)


if __name__ == "__main__":
    main()
