"""Timed training for the benchmarks: shards of raw images, and pretraining runs whose steps are timed.

The runs are the project's own: `Pretraining` in `learn/loop`, with the checkpoints and logs that the loop writes.
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

from pipeline.benchmarks.support.measure import Settings
from pipeline.benchmarks.support.raw_images import make_shards
from pipeline.learn import backbones, hardware, loop
from pipeline.learn.graphs import WARM_UP
from pipeline.learn.hardware import Hardware
from pipeline.learn.pretrain import Pretraining
from pipeline.runs.cluster import PATHS, Cluster
from pipeline.runs.folder import Run
from pipeline.runs.spec import DatasetRef, PretrainSpec
from pipeline.study import paper

WARMUP_STEPS = WARM_UP + 1  # before the timed steps; a CUDA graph is captured in the last
SMALL = (
    paper.Backbone("resnet18.a1_in1k", "ResNet-18", paper.CNN),
    paper.Backbone("vit_tiny_patch16_224.augreg_in21k_ft_in1k", "ViT-Ti/16", paper.TRANSFORMER),
)
TOY = (
    paper.Backbone("test_resnet.r160_in1k", "tiny ResNet", paper.CNN),
    paper.Backbone("test_vit.r160_in1k", "tiny ViT", paper.TRANSFORMER),
)


def untrained(backbone: paper.Backbone) -> paper.Backbone:
    """The backbone with random weights, so that nothing is fetched."""
    return dataclasses.replace(backbone, weights="random")


def make_dataset(settings: Settings, raw: Path, size: int) -> DatasetRef:
    """Shard the images of a raw folder at size × size pixels, with the project's own command."""
    name = raw.name.replace("-", "_")
    shards = make_shards(Path(this_machine(settings).shards), name, size, "--layout", "folder", "--raw", raw)
    return DatasetRef(name=shards.name, fingerprint=shards.fingerprint)


def this_machine(settings: Settings, device: str = "cpu") -> Cluster:
    """A cluster that is this machine, with all of its cores (one core with `--quick`)."""
    paths: dict[str, Any] = {name: str(settings.scratch / name) for name in PATHS}
    return Cluster(**paths, device=device, threads=1 if settings.quick else len(os.sched_getaffinity(0)))


def choose_hardware(site: Cluster) -> Hardware:
    """Make this process compute as a run does: in float32 on a CPU, in the GPU's best precision on a GPU."""
    chosen = hardware.choose(site, "auto")
    hardware.make_deterministic(chosen)
    return chosen


def network(tag: str, size: int) -> nn.Module:
    """The backbone with random weights and the output size of CASS."""
    return backbones.build(tag, outputs=paper.HEAD_DIM, image_size=size, weights="random", folder=Path())


def wait(device: torch.device) -> None:
    """Wait until a GPU has finished its work."""
    if device.type == "cuda":
        torch.cuda.synchronize()


class TimedPretraining(Pretraining):
    """One epoch of `steps` steps; records when each step starts and ends, and how many steps were done at each save.

    With `in_memory` every step takes the same batch, which is in memory: the time excludes loading.
    """

    batch_in_memory: Tensor | None = None

    def __init__(self, spec: PretrainSpec, site: Cluster, steps: int, *, in_memory: bool) -> None:
        super().__init__(dataclasses.replace(spec, epochs=1), site, torch.device(site.device))
        if in_memory:
            self.batch_in_memory = self.pixels(0, 0).clone()
        assert in_memory or steps <= self.steps_per_epoch, (
            f"{steps} steps need more than {self.steps_per_epoch} batches"
        )
        self.steps_per_epoch = steps
        self.clear_times()

    def clear_times(self) -> None:
        self.step_starts: list[float] = []
        self.step_ends: list[float] = []
        self.steps_at_save: list[int] = []

    def pixels(self, epoch: int, step: int) -> Tensor:
        return super().pixels(epoch, step) if self.batch_in_memory is None else self.batch_in_memory

    def inputs(self, epoch: int, step: int) -> tuple[tuple[Tensor, ...], int]:
        if step in (WARMUP_STEPS, self.steps_per_epoch - 1):
            wait(self.device)  # the time is read at these two steps; between them the host may run ahead of a GPU
        self.step_starts.append(time.perf_counter())
        return super().inputs(epoch, step)

    def after_step(self, epoch: int, step: int) -> None:
        super().after_step(epoch, step)
        for optimizer, _ in self.optimizers:  # here, not in the loop: freeing their memory is a part of the step
            optimizer.zero_grad()
        self.step_ends.append(time.perf_counter())

    def end_epoch(self, epoch: int) -> tuple[dict[str, Any], bool]:
        out = super().end_epoch(epoch)
        self.epoch_ended = time.perf_counter()
        return out

    def state(self) -> dict[str, Any]:
        self.steps_at_save.append(len(self.step_ends))
        return super().state()

    def seconds_a_step(self) -> float:
        """The mean seconds from the start of a step to the start of the next, without the first `WARMUP_STEPS`."""
        starts = self.step_starts
        return (starts[-1] - starts[WARMUP_STEPS]) / (len(starts) - 1 - WARMUP_STEPS)


def train(
    program: TimedPretraining,
    settings: Settings,
    hardware: Hardware,
    *,
    checkpoint_seconds: float = 600.0,
    should_stop: Callable[[], bool] = lambda: False,
    graphs: bool = False,
    saves: bool = True,
) -> list[float]:
    """Train until the end or until `should_stop()`, in a temporary run folder; clears the program's times first.

    Returns the times (perf_counter) at which the epochs ended. Without `saves` it ends with its epoch, before the last
    checkpoint is written.
    """
    program.clear_times()
    with tempfile.TemporaryDirectory(dir=settings.scratch) as folder, contextlib.redirect_stdout(io.StringIO()):
        trainer = loop.Trainer(
            program,
            Run(Path(folder)),
            hardware,
            checkpoint_seconds=checkpoint_seconds,
            should_stop=should_stop,
            graphs=graphs,
        )
        ended = []
        with contextlib.suppress(loop.Stopped), contextlib.closing(trainer.epochs()) as epochs:
            for _ in epochs:
                ended.append(time.perf_counter())
                if not saves:
                    break
        return ended
