"""What benchmarks of training share: shards of raw images, and pretraining runs whose steps are timed.

The runs are the project's own: `Pretraining` in `learn/loop`, with checkpoints and logs where the loop has them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.benchmarks.support.base import Bench
from pipeline.benchmarks.support.raw_images import sharded
from pipeline.learn import backbones, hardware, loop
from pipeline.learn.hardware import Hardware
from pipeline.learn.pretrain import Pretraining
from pipeline.runs.cluster import PATHS, Cluster
from pipeline.runs.folder import Run
from pipeline.runs.spec import DatasetRef, PretrainSpec
from pipeline.study import paper

WARM = 3  # steps before the timed ones
SMALL = (
    paper.Backbone("resnet18.a1_in1k", "ResNet-18", paper.CNN),
    paper.Backbone("vit_tiny_patch16_224.augreg_in21k_ft_in1k", "ViT-Ti/16", paper.TRANSFORMER),
)
TOY = (
    paper.Backbone("test_resnet.r160_in1k", "tiny ResNet", paper.CNN),
    paper.Backbone("test_vit.r160_in1k", "tiny ViT", paper.TRANSFORMER),
)


def make_shards(bench: Bench, raw: Path, size: int) -> DatasetRef:
    """The images of a raw folder as shards of size × size pixels, by the command that makes them."""
    name = raw.name.replace("-", "_")
    shards = sharded(Path(site(bench).shards), name, size, "--layout", "folder", "--raw", raw)
    return DatasetRef(name=shards.name, fingerprint=shards.fingerprint)


def site(bench: Bench, device: str = "cpu") -> Cluster:
    """This machine: every core (one in little)."""
    paths: dict[str, Any] = {name: str(bench.scratch / name) for name in PATHS}
    return Cluster(**paths, device=device, threads=1 if bench.quick else len(os.sched_getaffinity(0)))


def settled(site: Cluster) -> Hardware:
    """Make this process compute as a run does: float32 on a CPU, what the card computes best on a GPU."""
    chosen = hardware.choose(site, "auto")
    hardware.settle(chosen)
    return chosen


def network(tag: str, size: int) -> nn.Module:
    """The backbone with random weights and the head that CASS leaves on it."""
    return backbones.build(tag, outputs=paper.HEAD_DIM, image_size=size, weights="random", folder=Path())


def wait(device: torch.device) -> None:
    """Let a GPU finish what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize()


class Timed(Pretraining):
    """One epoch of `steps` steps that notes when each begins and is done, and before which step a state was asked for.

    With `held` every step takes the same batch, which lies in memory.
    """

    held: Tensor | None = None

    def __init__(self, spec: PretrainSpec, site: Cluster, steps: int, *, held: bool) -> None:
        super().__init__(dataclasses.replace(spec, epochs=1), site, torch.device(site.device))
        if held:
            self.held = self.pixels(0, 0).clone()
        assert held or steps <= self.steps_per_epoch, f"{self.steps_per_epoch} batches are too few for {steps} steps"
        self.steps_per_epoch = steps
        self.forget()

    def forget(self) -> None:
        self.began: list[float] = []
        self.ended: list[float] = []
        self.saves: list[int] = []

    def pixels(self, epoch: int, step: int) -> Tensor:
        return super().pixels(epoch, step) if self.held is None else self.held

    def loss(self, epoch: int, step: int) -> tuple[dict[str, Tensor], int]:
        if step in (WARM, self.steps_per_epoch - 1):
            wait(self.device)  # the clock is read at these two; between them the host may run ahead
        self.began.append(time.perf_counter())
        return super().loss(epoch, step)

    def after_step(self, epoch: int, step: int) -> None:
        super().after_step(epoch, step)
        for optimizer, _ in self.optimizers:  # here, not in the loop: giving back their memory is the step's
            optimizer.zero_grad()
        self.ended.append(time.perf_counter())

    def end_epoch(self, epoch: int) -> tuple[dict[str, Any], bool]:
        out = super().end_epoch(epoch)
        self.epoch_ended = time.perf_counter()
        return out

    def state(self) -> dict[str, Any]:
        self.saves.append(len(self.ended))
        return super().state()

    def seconds_a_step(self) -> float:
        """The mean of a step and all that the loop does before the next, the first `WARM` left out."""
        return (self.began[-1] - self.began[WARM]) / (len(self.began) - 1 - WARM)


def train(
    program: Timed,
    bench: Bench,
    hardware: Hardware,
    *,
    checkpoint_seconds: float = 600.0,
    should_stop: Callable[[], bool] = lambda: False,
    after_epoch: Callable[[loop.Counters, Callable[[Run], None]], None] = lambda counters, save: None,
) -> None:
    """Train the epoch, or until `should_stop()`, in a run folder of its own; the program's notes begin anew."""
    program.forget()
    with tempfile.TemporaryDirectory(dir=bench.scratch) as folder, contextlib.redirect_stdout(io.StringIO()):
        with contextlib.suppress(loop.Stopped):
            loop.train(
                program,
                Run(Path(folder)),
                hardware,
                checkpoint_seconds=checkpoint_seconds,
                should_stop=should_stop,
                after_epoch=after_epoch,
            )
