"""One training step of a spec on a pretended GPU: its memory, its operations, its waits."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.learn import loop
from pipeline.learn.program import Program
from pipeline.rehearsal.cuda import TURING, Gpu, pretended
from pipeline.rehearsal.programs import MadeUp, hardware_of, made_up, program_of
from pipeline.rehearsal.seen import Seen
from pipeline.runs.folder import Run
from pipeline.runs.spec import PretrainSpec, Spec

KINDS = ("weights", "gradients", "optimizer", "averages", "activations")


@dataclass(frozen=True)
class Step:
    """What the second step of a run does, in which nothing is allocated for the first time any more."""

    peak: Mapping[str, int]
    """Device bytes at the moment when most are in use, by `KINDS`: `weights` has a teacher and all buffers too,
    `averages` the averaged weights or a fine-tune's best ones, `activations` everything else."""
    launches: Mapping[str, int]
    """Operations that start work on the device, by part of the step; each is one kernel or more."""
    pinned: int
    """Page-locked host bytes, as torch's allocator rounds them."""
    seen: Seen
    """All that was asked of the device in this step."""

    @property
    def peak_bytes(self) -> int:
        return sum(self.peak.values())


def rehearse_step(
    spec: Spec, *, precision: str = "float32", gpu: Gpu = TURING, classes: int = 8, averaging: bool = True
) -> Step:
    """Rehearse a step of the spec at its own size, batch and backbones; neither data nor weights are read.

    `averaging`: as in the last part of a run, when the averages (a fine-tune's best weights) are there too.
    """
    data = MadeUp(spec.image_size, tuple(f"class {number}" for number in range(classes)), 4 * spec.batch_size)
    hardware = hardware_of(gpu, precision)
    with warnings.catch_warnings(), pretended(gpu) as seen, made_up(seen, data):
        warnings.simplefilter("ignore")
        program = program_of(spec, data, hardware)
        trainer = loop.Trainer(
            program, Run(Path("nowhere")), hardware, checkpoint_seconds=1e6, should_stop=lambda: False
        )
        if averaging:
            keep_averages(program)
        trainer.take_step()
        label(seen, program)
        first = seen.launches.copy(), seen.waits.copy(), seen.uploads.copy()
        seen.memory.reset_peak()
        trainer.take_step()
        for counter, before in zip((seen.launches, seen.waits, seen.uploads), first, strict=True):
            counter.subtract(before)  # type: ignore[attr-defined]
        launches: Counter[str] = Counter()
        for (part, _), count in seen.launches.items():
            launches[part] += count
        peak = {kind: seen.memory.peak.get(kind, 0) for kind in KINDS}
        return Step(peak=peak, launches=dict(+launches), pinned=seen.pinned.peak, seen=seen)


def keep_averages(program: Any) -> None:
    """Bring the program to the last part of its run, when it keeps weights a second time."""
    if isinstance(program.spec, PretrainSpec):
        program.averages.end_epoch(program.module, program.epochs - 1)
    else:
        program.keep_best(0, 0.0)


def label(seen: Seen, program: Program) -> None:
    """Say what the program's tensors are for."""
    memory = seen.memory
    memory.label(program.module.parameters(), "weights")
    memory.label(program.module.buffers(), "weights")
    for optimizer, _ in program.optimizers:
        for state in optimizer.state.values():
            memory.label((value for value in state.values() if hasattr(value, "untyped_storage")), "optimizer")
    state = program.state()
    kept = state.get("averages") or state.get("best", {}).get("model") or {}
    memory.label(kept.values(), "averages")
