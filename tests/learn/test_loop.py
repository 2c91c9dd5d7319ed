"""The loop's counters, its schedule and its refusal of losses that are not finite."""

import dataclasses
import math

import pytest
import torch
from torch import nn

from pipeline.core import files
from pipeline.learn import loop
from pipeline.learn.hardware import Hardware
from pipeline.learn.program import Program
from pipeline.runs.folder import Run
from pipeline.runs.spec import Optim

CPU = Hardware(device="cpu", model="test", precision="float32", threads=1)
OPTIM = Optim(name="sgd", lr=0.5, t_max=4, min_lr=0.1)


class Counting(Program):
    """One weight, whose gradient is 1 at every step; notes the learning rates it was trained with."""

    keep_gradients = False

    def __init__(self, losses=None, stop_after=None):
        self.module = nn.Linear(1, 1, bias=False)
        self.module.weight.data.zero_()
        self.optimizers = [(torch.optim.SGD(self.module.parameters(), lr=0.0), OPTIM)]
        self.epochs, self.steps_per_epoch = 3, 4
        self.rates, self.losses, self.stop_after = [], losses or {}, stop_after

    def inputs(self, epoch, step):
        self.rates.append(self.optimizers[0][0].param_groups[0]["lr"])
        return (torch.tensor(self.losses.get((epoch, step), 0.0)),), 2

    def loss(self, *inputs):
        return {"loss": self.module.weight.sum() + inputs[0]}

    def after_step(self, epoch, step):
        pass

    def end_epoch(self, epoch):
        return {"ended": epoch}, epoch == self.stop_after

    def state(self):
        return {}

    def restore(self, state):
        pass


def train(program, folder, stop=lambda: False, checkpoint_seconds=3600):
    folder.mkdir(exist_ok=True)
    return loop.Trainer(program, Run(folder), CPU, checkpoint_seconds=checkpoint_seconds, should_stop=stop).train()


def test_every_step_has_the_learning_rate_of_its_global_step(tmp_path):
    program = Counting()
    counters = train(program, tmp_path / "run")
    expected = [0.1 + 0.4 * (1 + math.cos(math.pi * step / 4)) / 2 for step in range(12)]
    assert program.rates == pytest.approx(expected)
    assert program.module.weight.item() == pytest.approx(-sum(expected))
    assert (counters.epoch, counters.global_step, counters.images) == (3, 12, 24)


def test_metrics_have_one_row_an_epoch_with_the_mean_loss(tmp_path):
    train(Counting(losses={(1, 2): 8.0}), tmp_path / "run")
    rows = files.read_jsonl(tmp_path / "run" / "metrics.jsonl")
    assert [row["epoch"] for row in rows] == [0, 1, 2]
    assert [row["ended"] for row in rows] == [0, 1, 2]
    plain = tmp_path / "plain"
    train(Counting(), plain)
    assert rows[1]["loss"] == pytest.approx(files.read_jsonl(plain / "metrics.jsonl")[1]["loss"] + 8 / 4)


def test_a_program_may_end_early_and_stays_ended(tmp_path):
    counters = train(Counting(stop_after=1), tmp_path / "run")
    assert counters.epoch == 2
    again = Counting(stop_after=1)
    assert train(again, tmp_path / "run").global_step == 8
    assert again.rates == []


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_step(tmp_path):
    with pytest.raises(ValueError, match="loss is nan at epoch 1, step 2"):
        train(Counting(losses={(1, 2): float("nan")}), tmp_path / "run")


def test_a_stop_saves_before_it_leaves_and_metrics_are_not_doubled(tmp_path):
    looks = iter([False] * 5 + [True])
    with pytest.raises(loop.Stopped):
        train(Counting(), tmp_path / "run", stop=lambda: next(looks))
    program = Counting()
    train(program, tmp_path / "run")
    assert len(program.rates) == 6
    rows = files.read_jsonl(tmp_path / "run" / "metrics.jsonl")
    assert [row["epoch"] for row in rows] == [0, 1, 2]


def test_a_skipped_float16_gradient_moves_the_schedule_on(tmp_path, monkeypatch):
    """The scaler meets an infinite gradient: no weight changes, the step still counts."""
    program = Counting()
    weight = program.module.weight
    weight.register_hook(lambda gradient: gradient * float("inf") if len(program.rates) == 2 else gradient)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0)
    monkeypatch.setattr(Hardware, "scaler", lambda self: scaler)
    counters = train(program, tmp_path / "run")
    skipped = sum(rate for step, rate in enumerate(program.rates) if step != 1)
    assert counters.global_step == 12
    assert weight.item() == pytest.approx(-skipped)


def test_float16_gradients_that_never_fit_end_the_run(tmp_path, monkeypatch):
    program = Counting()
    program.module.weight.register_hook(lambda gradient: gradient * float("inf"))
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0)  # twelve halvings are 2**-11
    monkeypatch.setattr(Hardware, "scaler", lambda self: scaler)
    with pytest.raises(ValueError, match="still overflow at a loss scale of 0.00049 in epoch 2"):
        train(program, tmp_path / "run")
    scales = [row["loss_scale"] for row in files.read_jsonl(tmp_path / "run" / "metrics.jsonl")]
    assert scales == [2.0**-3, 2.0**-7]


def test_gradients_are_clipped_after_they_are_unscaled(tmp_path, monkeypatch):
    program = Counting()
    clipped = dataclasses.replace(OPTIM, schedule="constant", clip=0.25)
    program.optimizers = [(program.optimizers[0][0], clipped)]
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    monkeypatch.setattr(Hardware, "scaler", lambda self: scaler)
    train(program, tmp_path / "run")
    assert program.module.weight.item() == pytest.approx(-12 * 0.5 * 0.25, rel=1e-4)


@pytest.mark.parametrize("when", ["on the way", "at a stop", "at the end"])
def test_a_checkpoint_that_cannot_be_written_ends_the_run_with_the_reason(tmp_path, monkeypatch, when):
    def full(*arguments):
        raise OSError("No space left on device")

    monkeypatch.setattr(torch, "save", full)
    program = Counting()
    program.epochs = 3 if when == "at the end" else 10**6
    stop = (lambda: len(program.rates) == 5) if when == "at a stop" else (lambda: False)
    with pytest.raises(OSError, match="No space left"):
        train(program, tmp_path / "run", stop, checkpoint_seconds=0 if when == "on the way" else 3600)
    assert len(program.rates) < 10**6
