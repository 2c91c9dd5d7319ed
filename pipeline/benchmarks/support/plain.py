"""The reference's loop without its accidents, in a process of its own: SIZE STEPS BATCH THREADS DEVICE TAG TAG [RAW].

Two networks, torch's own optimizers and schedules, `loss.item()` a step, and nothing of what this project sets: torch
computes as it does by itself. Prints the mean seconds of a step. Its batches come from the files below RAW as the
paper loads them; without RAW it is one batch in memory, augmented already.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from itertools import islice, repeat
from pathlib import Path

import torch
from torch import Tensor

from pipeline.benchmarks.support.paper_loader import batches
from pipeline.benchmarks.support.training import WARM, network
from pipeline.study import paper


def seconds(
    *, size: int, steps: int, batch: int, threads: int, device: str, pair: Sequence[paper.Backbone], raw: Path | None
) -> float:
    """Start the process and read what it prints."""
    words: list[str | Path | int] = [size, steps, batch, threads, device, *(backbone.tag for backbone in pair)]
    command = [sys.executable, "-m", __name__, *map(str, words), *([str(raw)] if raw else [])]
    ours = "CUBLAS_WORKSPACE_CONFIG"  # set by `settle`
    others = {name: value for name, value in os.environ.items() if name != ours}
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=others)
    return float(done.stdout.split()[-1])


class Plain:
    """Two networks that learn to agree, one `step` at a time."""

    def __init__(self, size: int, device: str, tags: Sequence[str]) -> None:
        self.device = device
        self.networks = [network(tag, size).to(device) for tag in tags]
        optim = paper.PRETRAIN_OPTIM
        self.optimizers = [torch.optim.Adam(network.parameters(), lr=optim.lr) for network in self.networks]
        self.schedules = [
            torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, optim.t_max, eta_min=optim.min_lr)
            for optimizer in self.optimizers
        ]

    def seconds(self, given: Iterable[Tensor], steps: int) -> float:
        """The mean seconds of a step, the first `WARM` left out."""
        began = []
        for images in islice(given, steps):
            began.append(time.perf_counter())
            self.step(images.to(self.device))
        return (began[-1] - began[WARM]) / (len(began) - 1 - WARM)

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
    given = (
        batches(Path(raw[0]), size=size, batch=batch) if raw else repeat(torch.randn(batch, 3, size, size).to(device))
    )
    print(Plain(size, device, tags).seconds(given, steps))


if __name__ == "__main__":
    main()
