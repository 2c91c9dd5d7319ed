"""A pretraining run, from its spec to its arms' weights: all training images, no labels (paper E.2, fidelity 3a)."""

from __future__ import annotations

import contextlib
import copy
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.core import files
from pipeline.core.seeds import derive
from pipeline.data.pixel_map import open_pixels
from pipeline.data.shards.index import shards_of
from pipeline.learn import backbones, board, collapse, loop, optim, probes
from pipeline.learn.augment import augment, normalise, unit
from pipeline.learn.average import Averages, refresh_batch_norm
from pipeline.learn.hardware import Hardware
from pipeline.learn.methods import METHODS
from pipeline.learn.program import Counters, Program
from pipeline.learn.samples import Samples, draws
from pipeline.runs.cluster import Cluster
from pipeline.runs.folder import Run
from pipeline.runs.spec import PretrainSpec

MONITORED = 512  # images that the collapse monitor reads

Outcome = tuple[dict[str, Any], Counters, dict[str, Any]]
"""Metrics, counters and notes for a result."""


class Pretraining(Program):
    """A self-supervised method over the training images; `milestones` are the epochs of shorter runs on its way."""

    def __init__(
        self, spec: PretrainSpec, cluster: Cluster, device: torch.device, milestones: Sequence[int] = ()
    ) -> None:
        method = METHODS.find(spec.method.name)
        if unknown := sorted(set(spec.method.options) - set(method.OPTIONS)):
            raise ValueError(f"{spec.method.name} has no option {unknown[0]!r}; known: {', '.join(method.OPTIONS)}")
        shards = shards_of(Path(cluster.shards), spec.dataset, size=spec.image_size)
        rows = np.array(shards.of_split("train"), dtype=np.int64)
        if spec.pictures is not None:
            rows = np.sort(np.random.default_rng(derive("pictures", spec.seed)).permutation(rows)[: spec.pictures])
        if len(rows) < spec.batch_size:
            raise ValueError(
                f"{spec.dataset.name} has {len(rows)} training images, fewer than a batch of {spec.batch_size}; "
                "add images (they need no labels) or pretrain with smaller batches"
            )
        self.spec = spec
        self.device = device
        self.samples = Samples(open_pixels(shards, cluster), rows, device)
        self.method = method.build(spec, backbones.arms_of(spec, method.outputs(spec), cluster)).to(device)
        self.module = self.method
        self.optimizers = [(optim.build(a.optim, self.method.parameters_of(a.name)), a.optim) for a in spec.arms]
        self.epochs = spec.epochs
        self.steps_per_epoch = len(rows) // spec.batch_size
        self.keep_gradients = spec.keep_gradients
        self.averages = Averages(spec.average, spec.epochs, milestones)
        self.probes: probes.Probes | None = None
        """What judges the arms on the way; None where the site wants none or no label is there."""

    def pixels(self, epoch: int, step: int) -> Tensor:
        """The images of a step: uint8 [batch, h, w, 3]."""
        return self.samples.step(self.spec.seed, epoch, step, self.spec.batch_size)[1]

    def inputs(self, epoch: int, step: int) -> tuple[tuple[Tensor, ...], int]:
        self.method.train()
        generator, progress = draws("augment", self.spec.seed, epoch, step), self.progress(epoch, step)
        return self.method.inputs(self.pixels(epoch, step), generator, progress), self.spec.batch_size

    def loss(self, *inputs: Tensor) -> dict[str, Tensor]:
        scalars: dict[str, Tensor] = self.method.loss(*inputs)
        return scalars

    def after_step(self, epoch: int, step: int) -> None:
        self.method.after_step(self.progress(epoch, step))

    def progress(self, epoch: int, step: int) -> float:
        """The part of the run that is done before a step, in [0, 1)."""
        return (epoch + step / self.steps_per_epoch) / self.epochs

    def end_epoch(self, epoch: int) -> tuple[dict[str, Any], bool]:
        self.averages.end_epoch(self.method, epoch)
        return self.monitor(epoch), False

    def monitor(self, epoch: int) -> dict[str, Any]:
        """The collapse monitor's figures for every arm, on the first images of a fixed order.

        Raises `ValueError` where outputs are not finite: the last step of an epoch made weights that no loss has shown.
        """
        positions = self.samples.permutation(self.spec.seed, -1)[:MONITORED]
        blocks = np.array_split(positions, -(-len(positions) // 64))
        out: dict[str, Any] = {}
        for name, arm in self.method.monitored().items():
            images = (normalise(unit(pixels), self.spec.augment) for pixels in self.samples.blocks(blocks))
            outputs = backbones.forward_in_batches(arm, images)
            if not outputs.isfinite().all():
                raise ValueError(
                    f"the outputs of {name} are not finite after the last step of epoch {epoch}; "
                    "lower the learning rate or run in float32"
                )
            out |= collapse.monitor(outputs, name)
        return out

    def observe(self, epochs: int) -> dict[str, Any]:
        if epochs == 0:
            return self.judge(self.method.arms(), "start")
        if probes.due(epochs):
            return self.judge(self.method.arms(), f"epoch {epochs}", parts=("val",))
        return {}

    def judge(self, arms: Mapping[str, nn.Module], when: str, parts: Sequence[str] = ("val", "test")) -> probes.Figures:
        """The probes' figures of some arms; none where nothing can judge them."""
        if self.probes is None:
            return {}
        before = time.monotonic()
        found = self.probes.judge(arms, parts=parts)
        print(f"probes of frozen features, {when}: {time.monotonic() - before:.1f} s", flush=True)
        return found

    def state(self) -> dict[str, Any]:
        return {"averages": self.averages.state()}

    def restore(self, state: dict[str, Any]) -> None:
        self.averages.restore(self.method, state["averages"])

    def averaged_arms(self, epochs: int) -> dict[str, nn.Module] | None:
        """The arms of a run of `epochs` with averaged weights and batch-norm statistics of their own, or None."""
        averaged = self.averages.module()
        if averaged is None:
            return None
        arms: dict[str, nn.Module] = {}
        for name, arm in copy.deepcopy(averaged).arms().items():  # type: ignore[operator]
            arm.train()
            if backbones.has_batch_norm(arm):
                refresh_batch_norm(arm, lambda: self._augmented(epochs), derive("batch norm", self.spec.seed))
            arms[name] = arm
        return arms

    def _augmented(self, epochs: int) -> Iterator[Tensor]:
        for step in range(self.steps_per_epoch):
            pixels = self.pixels(epochs, step)  # in the order of the epoch that would follow
            yield augment(pixels, self.spec.augment, draws("batch norm", self.spec.seed, step))


@dataclass(frozen=True)
class Stage:
    """A run of `epochs` that has come to its end: the run itself, or a shorter one on its way."""

    epochs: int
    write: Callable[[Run], Outcome]
    """Writes into a run's folder what that run leaves: weights, metrics and, where the site keeps it, its state."""


def stages(
    spec: PretrainSpec,
    run: Run,
    cluster: Cluster,
    hardware: Hardware,
    should_stop: Callable[[], bool],
    milestones: Sequence[int] = (),
) -> Generator[Stage, None, None]:
    """Train to the end; yields a stage after each number of epochs in `milestones`, and the run's own last.

    Close the iterator, as that of `loop.Trainer.epochs`; raises as that does.
    """
    program = Pretraining(spec, cluster, hardware.torch_device, milestones)
    if cluster.probes:
        found = probes.of_run(spec, cluster, hardware)
        if found.skipped:
            print(f"no probes of frozen features: {found.skipped}", flush=True)
        else:
            program.probes = found
    trainer = loop.Trainer(
        program,
        run,
        hardware,
        checkpoint_seconds=cluster.checkpoint_minutes * 60,
        should_stop=should_stop,
        graphs=cluster.cuda_graphs,
    )

    def write_shorter(shorter: Run) -> Outcome:
        if cluster.keep_state:
            trainer.save_to(shorter)
        return write(program, shorter, trainer.counters)

    with contextlib.closing(trainer.epochs()) as epochs:
        for counters in epochs:
            if counters.epoch in milestones:
                yield Stage(counters.epoch, write_shorter)
    yield Stage(spec.epochs, lambda whole: write(program, whole, trainer.counters))


def write(program: Pretraining, run: Run, counters: Counters) -> Outcome:
    """Write the rows of metrics and the weights of a run that ends where the counters stand.

    The probes judge the arms that are published; the last row has their figures.
    """
    arms = dict(program.method.arms())
    averaged = program.averaged_arms(counters.epoch)
    end = program.judge(averaged or arms, "end")
    last = {**counters.rows[-1], **end}
    files.write_jsonl(run["metrics"], [*counters.rows[:-1], last])
    if end and run["tensorboard"].exists():  # a milestone's folder has none
        shown = board.open_board(run, counters.epoch)
        board.add_scalars(shown, end, last["epoch"])
        shown.close()
    if averaged is not None:
        backbones.save_arms(run["last_weights"], arms, {"averaged": "no"})
    backbones.save_arms(run["weights"], averaged or arms, {"averaged": "yes" if averaged else "no"})
    metrics = {name: value for name, value in last.items() if name == "loss" or name.endswith(("_spread", "_rank"))}
    if end and program.probes:
        metrics["probes"] = {**program.probes.facts(), "start": counters.start, "end": end}
    collapsed = [name for name in arms if last[f"{name}_collapsed"]]
    if collapsed:
        print(f"COLLAPSE: {', '.join(collapsed)} give nearly the same output for every image", flush=True)
    return metrics, counters, {"collapsed": collapsed}
