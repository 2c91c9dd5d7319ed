"""Checkpoints: what training waits for them, the whole write, and what a run's bookkeeping takes in all."""

from __future__ import annotations

import dataclasses
import os
import shutil
import statistics
import time
from collections.abc import Callable, Iterator
from typing import IO, Any

import torch
from torch import Tensor

from pipeline.benchmarks.support.base import Bench, Row, Table, Way, compare, seconds
from pipeline.benchmarks.support.raw_images import raw_folder
from pipeline.benchmarks.support.training import TOY, Timed, make_shards, settled, site, train
from pipeline.learn import checkpoint
from pipeline.learn.average import Averages
from pipeline.learn.loop import Counters
from pipeline.runs.cluster import Cluster
from pipeline.runs.folder import Run
from pipeline.runs.spec import Average, PretrainSpec
from pipeline.study import paper

TITLE = "checkpoints: the loop's wait, the whole write, and a run's bookkeeping"
BATCH = 4  # images of a step; a state does not depend on it
SAVES = 2  # a measurement: the first of a run and the next
CADENCE = 600.0  # seconds from one checkpoint to the next, as the cluster files have it
STEPS_AN_EPOCH = paper.IMAGES["isic"][0] // paper.PRETRAIN_BATCH
PAPER_EPOCH = paper.TABLE_2_HOURS["cass"]["isic"] * 3600 / paper.TABLE_2_EPOCHS  # seconds
PAPER_STEP = PAPER_EPOCH / STEPS_AN_EPOCH


def run(bench: Bench) -> list[Table]:
    """Seconds the loop waits for a checkpoint, seconds until it is on disk, percent of a run for all bookkeeping."""
    raw, _ = raw_folder(bench, 40)
    size = 32 if bench.quick else 64
    here = dataclasses.replace(site(bench), threads=1)  # the cluster files'
    pair = TOY if bench.quick else paper.STANDARD
    spec = paper.cass(
        make_shards(bench, raw, size),
        preset=paper.preset("paper"),
        seed=0,
        backbones=pair,
        weights="random",
        batch_size=BATCH,
        image_size=size,
    )
    watched = Watched(bench, dataclasses.replace(spec, average=Average(start=0.0)), here)
    watched.train()  # Adam's moments and the averaged weights are part of the state from here on
    state = watched.state()
    note = (
        f"{' and '.join(backbone.title for backbone in pair)}, Adam's moments, averaged weights: "
        f"{sum(tensor.nbytes for tensor in tensors(state)) / 1e9:.2f} GB"
    )
    waiting, writing = the_wait(watched, state, note), the_write(watched, state, note)
    return [waiting, writing, bookkeeping(watched)]


class Watched:
    """A run in the project's loop, and what its loop waited for at each of the last training."""

    def __init__(self, bench: Bench, spec: PretrainSpec, here: Cluster) -> None:
        self.bench = bench
        self.hardware = settled(here)
        self.program = Timed(spec, here, steps=10**6, held=True)
        self.program.averages.end_epoch(self.program.method, 0)
        self.waits: list[float] = []
        """Of the loop for each checkpoint, in seconds."""
        self.others: list[float] = []
        """From the end of a step to the next where there was no checkpoint, in seconds."""

    def train(self) -> float:
        """Train until `SAVES` checkpoints are on their way; returns the wait for the last."""
        program = self.program
        train(
            program,
            self.bench,
            self.hardware,
            checkpoint_seconds=0.2 if self.bench.quick else 9.0,
            should_stop=lambda: len(program.saves) == SAVES,
        )
        gaps = [began - ended for ended, began in zip(program.ended, program.began[1:], strict=False)]
        saves = [step - 1 for step in program.saves[:SAVES]]
        self.waits = [gaps[step] for step in saves]
        self.others = [gap for step, gap in enumerate(gaps) if step not in saves]
        return self.waits[-1]

    def state(self) -> dict[str, Any]:
        """All that is large in a checkpoint."""
        return {
            "module": self.program.module.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer, _ in self.program.optimizers],
            "program": self.program.state(),
        }


def the_wait(watched: Watched, state: dict[str, Any], note: str) -> Table:
    """What training waits for a checkpoint, beside a plain loop's torch.save."""
    copy, file = checkpoint.host_copy(state), watched.bench.scratch / "plain.pt"
    made = compare(
        "the loop's wait for a checkpoint",
        "seconds",
        [
            Way(name="ours", once=watched.train),
            Way(name="ours, the first of a run", once=lambda: watched.waits[0]),
            Way(name="torch.save", once=lambda: seconds(lambda: torch.save(state, file)), role="peer"),
            Way(name="copying as much", once=lambda: seconds(lambda: checkpoint.host_copy(state, copy)), role="limit"),
        ],
        watched.bench,
        more_is_better=False,
        notes=[
            note,
            "ours: in the loop, from the end of a step to the beginning of the next, with a checkpoint between them; "
            "torch.save: what a plain loop waits for, not flushed, not hashed",
        ],
    )
    file.unlink()
    for row in made.rows[:3]:
        made.notes.append(
            f"{row.name}: {row.median / PAPER_STEP:.2g} steps of {PAPER_STEP:.2f} s, the paper's (Table 2)"
        )
    return made


def the_write(watched: Watched, state: dict[str, Any], note: str) -> Table:
    """Until a checkpoint is on disk, beside the disk's own speed."""
    folder = watched.bench.scratch / "written"
    folder.mkdir(exist_ok=True)
    blocks = [tensor.contiguous().numpy().data for tensor in tensors(state)]

    def flushed(write: Callable[[IO[bytes]], object]) -> float:
        def work() -> None:
            with open(folder / "file", "wb") as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())

        return seconds(work)

    made = compare(
        "the whole write",
        "seconds",
        [
            Way(name="ours, hashed", once=lambda: seconds(lambda: checkpoint.save(Run(folder), state, 0))),
            Way(name="torch.save and fsync", once=lambda: flushed(lambda file: torch.save(state, file)), role="peer"),
            Way(
                name="as many bytes and fsync",
                once=lambda: flushed(lambda file: [file.write(block) for block in blocks]),
                role="limit",
            ),
        ],
        watched.bench,
        more_is_better=False,
        notes=[note, "ours runs in a thread while training goes on"],
    )
    shutil.rmtree(folder)
    return made


def bookkeeping(watched: Watched) -> Table:
    """What checkpoints, averaging, logs and signs of life take of the paper's run on ISIC, in percent."""
    averages, method = Averages(Average(start=0.0), epochs=2), watched.program.method
    averages.end_epoch(method, 0)
    averaging = [seconds(lambda: averages.end_epoch(method, 1)) for _ in range(watched.bench.rounds)]
    parts = {
        "copies for checkpoints": watched.waits[-1] / CADENCE,
        "averaging": statistics.median(averaging) / PAPER_EPOCH,
        "an epoch's line and TensorBoard": epoch_line(watched) / PAPER_EPOCH,
        "between steps: rates, losses, signs of life": statistics.mean(watched.others) / PAPER_STEP,
    }
    rows = [Row(name=name, role="ours", values=[100 * part]) for name, part in parts.items()]
    return Table(
        title="bookkeeping",
        unit="% of the run",
        rows=[Row(name="all of it", role="ours", values=[100 * sum(parts.values())]), *rows],
        more_is_better=False,
        notes=[
            f"counted for the paper's run on ISIC (Table 2, float32): a step is {PAPER_STEP:.2f} s, an epoch "
            f"{PAPER_EPOCH:,.0f} s, a checkpoint comes every {CADENCE:.0f} s; what it is divided into is measured here",
        ],
    )


def epoch_line(watched: Watched) -> float:
    """Seconds from the last figure of an epoch to its place in metrics.jsonl, TensorBoard and the log."""
    program, ended = watched.program, []
    program.steps_per_epoch = 1

    def note(counters: Counters, save: object) -> None:
        ended.append(time.perf_counter())

    train(program, watched.bench, watched.hardware, after_epoch=note)
    return ended[0] - program.epoch_ended


def tensors(value: Any) -> Iterator[Tensor]:
    """Every tensor in nested dicts and lists."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (dict, list)):
        for item in value.values() if isinstance(value, dict) else value:
            yield from tensors(item)
