"""Checkpoints: how long training waits for one, how long its write takes, and the cost of all bookkeeping of a run."""

from __future__ import annotations

import dataclasses
import os
import shutil
import statistics
from collections.abc import Callable, Iterator
from functools import partial
from typing import IO, Any

import torch
from torch import Tensor

from pipeline.benchmarks.support.measure import Case, Settings, compare, seconds
from pipeline.benchmarks.support.raw_images import raw_folder
from pipeline.benchmarks.support.tables import Row, Table
from pipeline.benchmarks.support.training import (
    TOY,
    TimedPretraining,
    choose_hardware,
    make_dataset,
    this_machine,
    train,
    untrained,
)
from pipeline.learn import checkpoint
from pipeline.learn.average import Averages
from pipeline.runs.cluster import Cluster
from pipeline.runs.folder import Run
from pipeline.runs.spec import Average, PretrainSpec
from pipeline.study import paper, recipes

TITLE = "checkpoints: the loop's wait, the whole write, and a run's bookkeeping"
BATCH = 4  # images per step; the size of a checkpoint does not depend on it
SAVES = 2  # checkpoints per measurement: the first of a run and the next
CHECKPOINT_SECONDS = 600.0  # from one checkpoint to the next, as in the cluster files
STEPS_PER_EPOCH = paper.IMAGES["isic"][0] // paper.PRETRAIN_BATCH
PAPER_EPOCH_SECONDS = paper.TABLE_2_HOURS["cass"]["isic"] * 3600 / paper.TABLE_2_EPOCHS
PAPER_STEP_SECONDS = PAPER_EPOCH_SECONDS / STEPS_PER_EPOCH


def run(settings: Settings) -> list[Table]:
    """Seconds that the loop waits for a checkpoint, seconds until it is on disk, percent of a run for bookkeeping."""
    raw, _ = raw_folder(settings, 40)
    size = 32 if settings.quick else 64
    site = dataclasses.replace(this_machine(settings), threads=1)  # as in the cluster files
    pair = TOY if settings.quick else paper.STANDARD
    dataset = make_dataset(settings, raw, size)
    spec = recipes.cass(dataset, [untrained(backbone) for backbone in pair], preset=paper.preset("paper"), seed=0)
    spec = dataclasses.replace(spec, batch_size=BATCH, image_size=size, average=Average(start=0.0))
    monitored = MonitoredRun(settings, spec, site)
    monitored.train()  # from here on, Adam's moments and the averaged weights are part of the state
    state = monitored.state()
    note = (
        f"{' and '.join(backbone.title for backbone in pair)}, Adam's moments, averaged weights: "
        f"{sum(tensor.nbytes for tensor in tensors(state)) / 1e9:.2f} GB"
    )
    waiting, writing = wait_of_training(monitored, state, note), whole_write(monitored, state, note)
    return [waiting, writing, bookkeeping(monitored)]


class MonitoredRun:
    """A run in the project's loop, and how long the last call of `train` waited between steps."""

    def __init__(self, settings: Settings, spec: PretrainSpec, site: Cluster) -> None:
        self.settings = settings
        self.hardware = choose_hardware(site)
        self.program = TimedPretraining(spec, site, steps=10**6, in_memory=True)
        self.program.averages.end_epoch(self.program.method, 0)
        self.checkpoint_waits: list[float] = []
        """Seconds between two steps with a checkpoint between them."""
        self.other_waits: list[float] = []
        """Seconds between two steps without a checkpoint between them."""

    def train(self) -> float:
        """Train until `SAVES` checkpoints have been started; returns the seconds that the loop waited for the last."""
        program = self.program
        train(
            program,
            self.settings,
            self.hardware,
            checkpoint_seconds=0.2 if self.settings.quick else 9.0,
            should_stop=lambda: len(program.steps_at_save) == SAVES,
        )
        gaps = [start - end for end, start in zip(program.step_ends, program.step_starts[1:], strict=False)]
        saves = [steps - 1 for steps in program.steps_at_save[:SAVES]]
        self.checkpoint_waits = [gaps[step] for step in saves]
        self.other_waits = [gap for step, gap in enumerate(gaps) if step not in saves]
        return self.checkpoint_waits[-1]

    def state(self) -> dict[str, Any]:
        """Everything that is large in a checkpoint."""
        return {
            "module": self.program.module.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer, _ in self.program.optimizers],
            "program": self.program.state(),
        }


def wait_of_training(monitored: MonitoredRun, state: dict[str, Any], note: str) -> Table:
    """How long training waits for a checkpoint, compared with torch.save in a plain loop."""
    copy, file = checkpoint.host_copy(state), monitored.settings.scratch / "plain.pt"
    copying = partial(checkpoint.host_copy, state, copy)
    table = compare(
        "the loop's wait for a checkpoint",
        "seconds",
        [
            Case(name="ours", measure=monitored.train),
            Case(name="ours, the first of a run", measure=lambda: monitored.checkpoint_waits[0]),
            Case(name="torch.save", measure=lambda: seconds(lambda: torch.save(state, file)), role="peer"),
            Case(name="copying as many bytes", measure=lambda: seconds(copying), role="limit"),
        ],
        monitored.settings,
        more_is_better=False,
        notes=[
            note,
            "ours: in the loop, from the end of a step to the start of the next, with a checkpoint between them; "
            "torch.save: the wait of a plain loop, not flushed, not hashed",
        ],
    )
    file.unlink()
    for row in table.rows[:3]:
        steps = row.median / PAPER_STEP_SECONDS
        table.notes.append(f"{row.name}: {steps:.2g} of the paper's steps of {PAPER_STEP_SECONDS:.2f} s (Table 2)")
    return table


def whole_write(monitored: MonitoredRun, state: dict[str, Any], note: str) -> Table:
    """How long it takes until a checkpoint is on disk, compared with the disk's own speed."""
    folder = monitored.settings.scratch / "written"
    folder.mkdir(exist_ok=True)
    blocks = [tensor.contiguous().numpy().data for tensor in tensors(state)]

    def flushed(write: Callable[[IO[bytes]], object]) -> float:
        """Seconds of a write with fsync."""

        def work() -> None:
            with open(folder / "file", "wb") as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())

        return seconds(work)

    table = compare(
        "the whole write",
        "seconds",
        [
            Case(name="ours, hashed", measure=lambda: seconds(lambda: checkpoint.save(Run(folder), state, 0))),
            Case(
                name="torch.save and fsync", measure=lambda: flushed(lambda file: torch.save(state, file)), role="peer"
            ),
            Case(
                name="as many bytes and fsync",
                measure=lambda: flushed(lambda file: [file.write(block) for block in blocks]),
                role="limit",
            ),
        ],
        monitored.settings,
        more_is_better=False,
        notes=[note, "ours runs in a thread while training continues"],
    )
    shutil.rmtree(folder)
    return table


def bookkeeping(monitored: MonitoredRun) -> Table:
    """The part of the paper's run on ISIC that checkpoints, averaging, logs and heartbeats take, in percent."""
    averages, method = Averages(Average(start=0.0), epochs=2), monitored.program.method
    averages.end_epoch(method, 0)
    averaging = [seconds(lambda: averages.end_epoch(method, 1)) for _ in range(monitored.settings.rounds)]
    parts = {
        "copies for checkpoints": monitored.checkpoint_waits[-1] / CHECKPOINT_SECONDS,
        "averaging": statistics.median(averaging) / PAPER_EPOCH_SECONDS,
        "an epoch's line and TensorBoard": epoch_line(monitored) / PAPER_EPOCH_SECONDS,
        "between steps: learning rates, losses, heartbeat": statistics.mean(monitored.other_waits) / PAPER_STEP_SECONDS,
    }
    rows = [Row(name=name, role="ours", values=[100 * part]) for name, part in parts.items()]
    return Table(
        title="bookkeeping",
        unit="% of the run",
        rows=[Row(name="all bookkeeping", role="ours", values=[100 * sum(parts.values())]), *rows],
        more_is_better=False,
        notes=[
            f"relative to the paper's run on ISIC (Table 2, float32): step {PAPER_STEP_SECONDS:.2f} s, epoch "
            f"{PAPER_EPOCH_SECONDS:,.0f} s; one checkpoint in {CHECKPOINT_SECONDS:.0f} s; the rest is measured here",
        ],
    )


def epoch_line(monitored: MonitoredRun) -> float:
    """Seconds from the last metric of an epoch until it is in metrics.jsonl, TensorBoard and the log."""
    program = monitored.program
    program.steps_per_epoch = 1
    ends = train(program, monitored.settings, monitored.hardware)
    return ends[0] - program.epoch_ended


def tensors(value: Any) -> Iterator[Tensor]:
    """Every tensor in nested dicts and lists."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (dict, list)):
        for item in value.values() if isinstance(value, dict) else value:
            yield from tensors(item)
