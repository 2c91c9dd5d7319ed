"""The only training loop: it owns every counter, so a run killed at any instant goes on with the same bits.

A `Program` says what is trained; data and augmentation are functions of (seed, epoch, step), so the state of a run is
its modules, optimizers, scaler, generators and the counters below, and a checkpoint holds all of them. It is written
while training goes on; a stop and the end wait for it.
"""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.core import files
from pipeline.learn import checkpoint
from pipeline.learn.hardware import Hardware
from pipeline.learn.optim import clip, schedule
from pipeline.runs.folder import Run
from pipeline.runs.spec import Optim

HEARTBEAT_SECONDS = 2.0
CHECK_STEPS = 50  # between looks at the loss on a GPU, each of which waits for it
LEAST_SCALE = 2**-10  # of float16 losses; a gradient that overflows below it is no matter of float16


class Stopped(Exception):
    """The run was asked to stop; its checkpoint is on disk."""


class Program(ABC):
    """What the loop trains."""

    module: nn.Module
    optimizers: Sequence[tuple[torch.optim.Optimizer, Optim]]
    epochs: int
    steps_per_epoch: int
    keep_gradients: bool

    @abstractmethod
    def loss(self, epoch: int, step: int) -> tuple[dict[str, Tensor], int]:
        """The scalars of a step ("loss" is minimised) and how many images it took."""

    @abstractmethod
    def after_step(self, epoch: int, step: int) -> None:
        """What follows the optimizers' step."""

    @abstractmethod
    def end_epoch(self, epoch: int) -> tuple[dict[str, Any], bool]:
        """What is logged of an epoch that ended, and whether the run ends with it."""

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """State beyond modules and optimizers: averages, the best so far."""

    @abstractmethod
    def restore(self, state: dict[str, Any]) -> None:
        """Take up what `state` gave."""


@dataclass
class Counters:
    """Where a run stands: the next step to take, and sums over the steps of this epoch."""

    epoch: int = 0
    step: int = 0
    global_step: int = 0
    images: int = 0
    seconds: float = 0.0
    epoch_images: int = 0
    epoch_seconds: float = 0.0
    """Of training steps only, validation left out."""
    finished: bool = False
    sums: dict[str, float] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)
    """What was logged of each epoch."""


def train(
    program: Program,
    run: Run,
    hardware: Hardware,
    *,
    checkpoint_seconds: float,
    should_stop: Callable[[], bool],
    after_epoch: Callable[[Counters, Callable[[Run], None]], None] = lambda counters, save: None,
) -> Counters:
    """Train to the end, from the newest checkpoint where there is one.

    `after_epoch(counters, save)` is called between two epochs and changes nothing of the state; `save(other run)` is
    that run's checkpoint of it. A run that was killed there comes by again: it writes no checkpoint of its own before
    that returns.
    Raises `Stopped` after saving when `should_stop()` turns true, `ValueError` when a loss is not finite.
    """
    if program.keep_gradients and hardware.precision == "float16":
        raise ValueError(
            "gradients that are kept cannot be unscaled twice; give the spec precision float32 or bfloat16"
        )
    device = hardware.torch_device
    scaler = hardware.scaler()
    counters = Counters()

    # --- Resume ------------------------------------------------------------------------------------------------
    saved = checkpoint.load(run, device)
    if saved is not None:
        program.module.load_state_dict(saved["module"])
        for (optimizer, _), state in zip(program.optimizers, saved["optimizers"], strict=True):
            optimizer.load_state_dict(state)
        if program.keep_gradients:
            for parameter, gradient in zip(program.module.parameters(), saved["gradients"], strict=True):
                parameter.grad = gradient
        program.restore(saved["program"])
        scaler.load_state_dict(saved["scaler"])
        checkpoint.set_generators(saved["generators"])
        counters = Counters(**saved["counters"])
    del saved
    files.write_jsonl(run["metrics"], counters.rows)
    board = _board(run, counters.epoch)

    def current_state() -> dict[str, Any]:
        return {
            "module": program.module.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer, _ in program.optimizers],
            "gradients": [p.grad for p in program.module.parameters()] if program.keep_gradients else [],
            "program": program.state(),
            "scaler": scaler.state_dict(),
            "generators": checkpoint.generators(device),
            "counters": asdict(counters),
        }

    def save_to(other: Run) -> None:
        checkpoint.save(other, current_state(), counters.global_step)

    # --- Steps -------------------------------------------------------------------------------------------------
    started, first_step = time.monotonic(), counters.global_step
    clock = saved_at = beat_at = started
    pending: list[tuple[int, dict[str, Tensor]]] = []

    def settle() -> None:
        """Fetch the pending losses from the device, add them up and stop at the first that is not finite."""
        for step, scalars in pending:
            for name, value in scalars.items():
                number = value.item()
                if not math.isfinite(number):
                    raise ValueError(
                        f"{name} is {number} at epoch {counters.epoch}, step {step}; "
                        "lower the learning rate or run in float32"
                    )
                counters.sums[name] = counters.sums.get(name, 0.0) + number
        pending.clear()

    with checkpoint.Writer(run) as checkpoints:
        while counters.epoch < program.epochs and not counters.finished:
            while counters.step < program.steps_per_epoch:
                progress = counters.global_step / (program.epochs * program.steps_per_epoch)
                for i, (optimizer, optim) in enumerate(program.optimizers):
                    lr = schedule(optimizer, optim, step=counters.global_step, epoch=counters.epoch, progress=progress)
                    name = f"lr_{i}"
                    counters.sums[name] = counters.sums.get(name, 0.0) + lr
                if not program.keep_gradients:
                    for optimizer, _ in program.optimizers:
                        optimizer.zero_grad(set_to_none=True)
                with hardware.autocast():
                    scalars, images = program.loss(counters.epoch, counters.step)
                torch.autograd.backward(scaler.scale(scalars["loss"]))
                for optimizer, optim in program.optimizers:
                    if optim.clip:
                        scaler.unscale_(optimizer)
                        clip(optimizer, optim.clip)
                    scaler.step(optimizer)
                scaler.update()
                program.after_step(counters.epoch, counters.step)

                pending.append((counters.step, {name: value.detach() for name, value in scalars.items()}))
                counters.step += 1
                counters.global_step += 1
                counters.images += images
                counters.epoch_images += images
                if device.type == "cpu" or len(pending) >= CHECK_STEPS:
                    settle()

                now = time.monotonic()
                counters.seconds += now - clock
                counters.epoch_seconds += now - clock
                clock = now
                stopping = should_stop()
                if stopping or now - saved_at >= checkpoint_seconds:
                    settle()
                    checkpoints.save(current_state(), counters.global_step)
                    saved_at = time.monotonic()
                checkpoints.check()
                if stopping:
                    checkpoints.wait()
                    raise Stopped
                if now - beat_at >= HEARTBEAT_SECONDS or counters.global_step == first_step + 1:
                    beat_at = now
                    done = counters.global_step - first_step
                    _beat(run, program, counters, speed=done / (now - started))

            # --- End of an epoch -----------------------------------------------------------------------------------
            settle()
            now = time.monotonic()  # on CUDA the losses fetched above were still on their way
            counters.seconds += now - clock
            counters.epoch_seconds += now - clock
            clock = now
            means = {name: value / program.steps_per_epoch for name, value in counters.sums.items()}
            more, counters.finished = program.end_epoch(counters.epoch)
            now = time.monotonic()
            counters.seconds += now - clock
            clock = now
            row = {
                "epoch": counters.epoch,
                "step": counters.global_step,
                **means,
                "images_per_second": counters.epoch_images / counters.epoch_seconds,
                **more,
            }
            if scaler.is_enabled():
                row["loss_scale"] = scaler.get_scale()
                if row["loss_scale"] < LEAST_SCALE:
                    raise ValueError(
                        f"float16 gradients still overflow at a loss scale of {row['loss_scale']:.2g} in epoch "
                        f"{counters.epoch}, so no step is taken; lower the learning rate or run in float32"
                    )
            counters.rows.append(row)
            files.append_jsonl(run["metrics"], row)
            for name, value in row.items():
                if isinstance(value, (int, float)) and name not in ("epoch", "step"):
                    board.add_scalar(name, value, counters.epoch)
            print(" ".join(f"{name}={_shown(value)}" for name, value in row.items()), flush=True)
            counters.epoch, counters.step, counters.sums = counters.epoch + 1, 0, {}
            counters.epoch_images, counters.epoch_seconds = 0, 0.0
            after_epoch(counters, save_to)
            clock = time.monotonic()
        checkpoints.save(current_state(), counters.global_step)
    board.close()
    return counters


def _shown(value: Any) -> str:
    return f"{value:.5g}" if isinstance(value, float) else str(value)


def _beat(run: Run, program: Program, counters: Counters, *, speed: float) -> None:
    """Say where the run stands, for `status`; `speed` is in steps a second."""
    left = program.epochs * program.steps_per_epoch - counters.global_step
    value = {
        "epoch": counters.epoch,
        "epochs": program.epochs,
        "step": counters.step,
        "steps": program.steps_per_epoch,
        "images_per_second": counters.images / counters.seconds if counters.seconds else 0.0,
        "eta_seconds": left / speed if speed else None,
        "time": time.time(),
    }
    files.write_json(run["progress"], value, durable=False)


def _board(run: Run, epoch: int) -> Any:
    """A TensorBoard writer that takes back what a killed run had written of this epoch and later."""
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(run["tensorboard"]), purge_step=epoch)
