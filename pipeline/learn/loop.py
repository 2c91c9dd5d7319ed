"""The only training loop: it owns every counter, so a run killed at any instant resumes with the same bits.

A `Program` says what is trained. Data and augmentation are functions of (seed, epoch, step), so the state of a run is
its modules, optimizers, scaler, generators and counters. A checkpoint holds all of them; it is written while
training continues, and a stop and the end of the run wait for it.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Generator
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from pipeline.core import clock, files
from pipeline.learn import checkpoint
from pipeline.learn.board import add_scalars, open_board
from pipeline.learn.graphs import Replayed
from pipeline.learn.hardware import Hardware
from pipeline.learn.optim import clip, schedule
from pipeline.learn.program import Counters, Program
from pipeline.runs.folder import Run

HEARTBEAT_SECONDS = 2.0
CHECK_STEPS = 50  # between reads of the loss on a GPU, each of which waits for the GPU
MIN_LOSS_SCALE = 2**-10  # of float16 losses; a gradient that overflows below it has another cause than float16


class Stopped(Exception):
    """The run was asked to stop; its checkpoint is on disk."""


class Stopwatch:
    """Seconds of work between calls of `lap`; they add up to the right sum, though a single one may be below zero."""

    def __init__(self) -> None:
        self.last = clock.working()

    def lap(self) -> float:
        before, self.last = self.last, clock.working()
        return self.last - before


class Trainer:
    """One program on its way to the end, in one process. `epochs` does the work; the rest is its state."""

    def __init__(
        self,
        program: Program,
        run: Run,
        hardware: Hardware,
        *,
        checkpoint_seconds: float,
        should_stop: Callable[[], bool],
        graphs: bool = False,
    ) -> None:
        """`graphs`: a GPU replays the forward and backward pass of a step as one CUDA graph; no bit depends on it."""
        if program.keep_gradients and hardware.precision == "float16":
            raise ValueError(
                "gradients that are kept cannot be unscaled twice; give the spec precision float32 or bfloat16"
            )
        self.program = program
        self.run = run
        self.hardware = hardware
        self.device = hardware.torch_device
        self.scaler = hardware.scaler()
        self.checkpoint_seconds = checkpoint_seconds
        self.should_stop = should_stop
        self.passes = Replayed(self.take_passes, program.module, self.device) if graphs else self.take_passes
        self.counters = Counters()
        self.pending: list[tuple[int, dict[str, Tensor]]] = []
        """Scalars of steps that were not read from the device yet."""
        self._watch = Stopwatch()

    def epochs(self) -> Generator[Counters, None, None]:
        """Train to the end, from the newest checkpoint if there is one; yields the counters after every epoch.

        The state does not change while the caller has the counters, and no checkpoint is begun: a run that is killed
        there comes to the same place again. Close the iterator (`contextlib.closing`), so that the checkpoint that is
        being written ends. Raises `Stopped` after saving when `should_stop()` is true, `ValueError` when a loss is not
        finite.
        """
        self._resume()
        counters, program = self.counters, self.program
        self._started = self._saved_at = self._beat_at = time.monotonic()
        self._first_step = counters.global_step
        self._watch = Stopwatch()
        board = open_board(self.run, counters.epoch)
        with contextlib.closing(board), checkpoint.Writer(self.run) as writer:
            while counters.epoch < program.epochs and not counters.finished:
                while counters.step < program.steps_per_epoch:
                    self.take_step()
                    self._save_if_due(writer)
                    self._beat()
                self._end_epoch(board)
                yield counters
                self._watch.lap()  # the caller's time is not the run's
            writer.save(self.state_dict(), counters.global_step)

    def train(self) -> Counters:
        """Train to the end as `epochs`; returns the counters."""
        with contextlib.closing(self.epochs()) as epochs:
            for _ in epochs:
                pass
        return self.counters

    def save_to(self, other: Run) -> None:
        """Write the present state as a checkpoint of another run, and wait for it."""
        checkpoint.save(other, self.state_dict(), self.counters.global_step)

    # --- State -------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Everything that the rest of the run depends on."""
        program = self.program
        return {
            "module": program.module.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer, _ in program.optimizers],
            "gradients": [p.grad for p in program.module.parameters()] if program.keep_gradients else [],
            "program": program.state(),
            "scaler": self.scaler.state_dict(),
            "generators": checkpoint.generators(self.device),
            "counters": asdict(self.counters),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        program = self.program
        program.module.load_state_dict(state["module"])
        for (optimizer, _), saved in zip(program.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        if program.keep_gradients:
            for parameter, gradient in zip(program.module.parameters(), state["gradients"], strict=True):
                parameter.grad = gradient
        program.restore(state["program"])
        self.scaler.load_state_dict(state["scaler"])
        checkpoint.set_generators(state["generators"])
        self.counters = Counters(**state["counters"])

    def _resume(self) -> None:
        saved = checkpoint.load(self.run, self.device)
        if saved is not None:
            self.load_state_dict(saved)
        else:
            self.counters.start = self.program.observe(0)
        files.write_jsonl(self.run["metrics"], self.counters.rows)

    # --- Steps -------------------------------------------------------------------------------------------------

    def take_step(self) -> None:
        """One step of every optimizer, and its share of the counters."""
        counters, program = self.counters, self.program
        progress = counters.global_step / (program.epochs * program.steps_per_epoch)
        for i, (optimizer, optim) in enumerate(program.optimizers):
            lr = schedule(optimizer, optim, step=counters.global_step, epoch=counters.epoch, progress=progress)
            counters.add(f"lr_{i}", lr)
        if not program.keep_gradients:
            for optimizer, _ in program.optimizers:
                optimizer.zero_grad(set_to_none=True)
        inputs, images = program.inputs(counters.epoch, counters.step)
        scalars = self.passes(*inputs)
        for optimizer, optim in program.optimizers:
            if optim.clip:
                self.scaler.unscale_(optimizer)
                clip(optimizer, optim.clip)
            self.scaler.step(optimizer)
        self.scaler.update()
        program.after_step(counters.epoch, counters.step)

        self.pending.append((counters.step, scalars))
        counters.step += 1
        counters.global_step += 1
        counters.images += images
        counters.epoch_images += images
        if self.device.type == "cpu" or len(self.pending) >= CHECK_STEPS:
            self._read_losses()
        self._count_training_time()

    def take_passes(self, *inputs: Tensor) -> dict[str, Tensor]:
        """The forward and the backward pass of a step; returns its scalars."""
        with self.hardware.autocast():
            scalars = self.program.loss(*inputs)
        torch.autograd.backward(self.scaler.scale(scalars["loss"]))
        return {name: value.detach() for name, value in scalars.items()}

    def _read_losses(self) -> None:
        """Read the pending scalars from the device and add them up; `ValueError` at the first that is not finite."""
        for step, scalars in self.pending:
            for name, value in scalars.items():
                number = value.item()
                if not math.isfinite(number):
                    raise ValueError(
                        f"{name} is {number} at epoch {self.counters.epoch}, step {step}; "
                        "lower the learning rate or run in float32"
                    )
                self.counters.add(name, number)
        self.pending.clear()

    def _count_training_time(self) -> None:
        elapsed = self._watch.lap()
        self.counters.seconds += elapsed
        self.counters.epoch_seconds += elapsed

    def _save_if_due(self, writer: checkpoint.Writer) -> None:
        """Start a checkpoint when it is due or the run is asked to stop; raise `Stopped` after the latter."""
        stopping = self.should_stop()
        if stopping or time.monotonic() - self._saved_at >= self.checkpoint_seconds:
            self._read_losses()
            writer.save(self.state_dict(), self.counters.global_step)
            self._saved_at = time.monotonic()
        writer.check()
        if stopping:
            writer.wait()
            raise Stopped

    def _end_epoch(self, board: Any) -> None:
        """Validate, log the epoch's row and move the counters to the next epoch."""
        counters, program = self.counters, self.program
        self._read_losses()
        self._count_training_time()  # on CUDA the losses that were just read were still being computed
        means = {name: value / program.steps_per_epoch for name, value in counters.sums.items()}
        more, counters.finished = program.end_epoch(counters.epoch)
        counters.seconds += self._watch.lap()
        observed = program.observe(counters.epoch + 1)
        self._watch.lap()
        row = {
            "epoch": counters.epoch,
            "step": counters.global_step,
            **means,
            "images_per_second": counters.epoch_images / counters.epoch_seconds,
            **more,
            **observed,
        }
        if counters.epoch == 0 and counters.start:
            row["start"] = counters.start
        if self.scaler.is_enabled():
            row["loss_scale"] = scale = self.scaler.get_scale()
            if scale < MIN_LOSS_SCALE:
                raise ValueError(
                    f"float16 gradients still overflow at a loss scale of {scale:.2g} in epoch {counters.epoch}, so no "
                    "step is taken; lower the learning rate or run in float32"
                )
        counters.rows.append(row)
        files.append_jsonl(self.run["metrics"], row)
        if counters.epoch == 0:
            add_scalars(board, counters.start, -1)
        add_scalars(board, row, counters.epoch)
        print(" ".join(f"{name}={_as_text(value)}" for name, value in row.items() if name != "start"), flush=True)
        counters.next_epoch()

    def _beat(self) -> None:
        """Write progress.json, for `status`: after the first step, then every `HEARTBEAT_SECONDS`."""
        counters, program, now = self.counters, self.program, time.monotonic()
        done = counters.global_step - self._first_step
        if now - self._beat_at < HEARTBEAT_SECONDS and done != 1:
            return
        self._beat_at = now
        speed = done / (now - self._started)  # steps a second
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
        files.write_json(self.run["progress"], value, durable=False)


def _as_text(value: Any) -> str:
    return f"{value:.5g}" if isinstance(value, float) else str(value)
