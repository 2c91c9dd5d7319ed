"""One training step of a spec on a pretended GPU: its memory, its operations, its waits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.learn import loop
from pipeline.learn.graphs import WARM_UP, Replayed
from pipeline.learn.program import Program
from pipeline.rehearsal.capture import Recording, check_same
from pipeline.rehearsal.cuda import TURING, Gpu
from pipeline.rehearsal.programs import rehearsed
from pipeline.rehearsal.seen import Seen
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
    scalars: Mapping[str, str]
    """The types of what is logged, `loss` among them."""
    inputs: frozenset[str]
    """The types of the images that enter the networks."""
    without_gradient: tuple[str, ...]
    """Parameters that are to be trained and have no gradient."""
    seen: Seen
    """All that was asked of the device in this step."""
    captured: int = 0
    """Operations of the forward and backward pass that a CUDA graph replays."""

    @property
    def peak_bytes(self) -> int:
        return sum(self.peak.values())


def rehearse_step(
    spec: Spec,
    *,
    precision: str = "float32",
    gpu: Gpu = TURING,
    classes: int = 8,
    averaging: bool = True,
    cuda_graphs: bool = False,
) -> Step:
    """Rehearse a step of the spec at its own size, batch and backbones; neither data nor weights are read.

    `averaging`: as in the last part of a run, when the averages (a fine-tune's best weights) are there too.
    `cuda_graphs`: a step whose forward and backward pass are replayed; `CannotCapture` where that would go wrong.
    """
    images = (WARM_UP + 4) * spec.batch_size  # one batch more than steps: it is read ahead
    with rehearsed(spec, precision, gpu, classes, images=images, cuda_graphs=cuda_graphs) as (seen, trainer):
        if averaging:
            keep_averages(trainer.program)
        captured = capture(seen, trainer) if cuda_graphs else 0
        trainer.take_step()
        label(seen, trainer.program)
        before = (seen.launches.copy(), seen.waits.copy(), seen.uploads.copy())
        seen.memory.reset_peak()
        inputs = note_inputs(trainer.program.module)
        trainer.take_step()
        for counter, earlier in zip((seen.launches, seen.waits, seen.uploads), before, strict=True):
            counter.subtract(earlier)  # type: ignore[attr-defined]
        seen.launches, seen.waits, seen.uploads = +seen.launches, +seen.waits, +seen.uploads
        return result(seen, trainer, frozenset(inputs), captured)


def capture(seen: Seen, trainer: loop.Trainer) -> int:
    """Take the steps after which the passes are captured; returns how many operations the graph holds.

    `CannotCapture` where two steps, or the capture, differ in an operation, in one of its numbers or in the memory from
    outside that it uses, and where the capture meets what it does not allow.
    """
    replayed, recordings = trainer.passes, []
    assert isinstance(replayed, Replayed)
    passes = replayed.passes

    def recorded(*inputs: Tensor) -> dict[str, Tensor]:
        recordings.append(Recording(inputs))
        with seen.recorded(recordings[-1]):
            return passes(*inputs)

    replayed.passes = recorded
    for _ in range(WARM_UP + 1):
        trainer.take_step()
    assert replayed.graph is not None
    _, *alike = recordings  # in the first step, things are made that stay
    for recording in alike[1:]:
        check_same(alike[0], recording)
    return len(alike[-1].operations)


def result(seen: Seen, trainer: loop.Trainer, inputs: frozenset[str], captured: int = 0) -> Step:
    launches: Counter[str] = Counter()
    for (part, _), count in seen.launches.items():
        launches[part] += count
    parameters = trainer.program.module.named_parameters()
    return Step(
        peak={kind: seen.memory.peak.get(kind, 0) for kind in KINDS},
        launches=launches,
        pinned=seen.pinned.peak,
        scalars={name: str(value.dtype)[6:] for name, value in trainer.pending[-1][1].items()},
        inputs=inputs,
        without_gradient=tuple(name for name, p in parameters if p.requires_grad and p.grad is None),
        seen=seen,
        captured=captured,
    )


def note_inputs(module: nn.Module) -> set[str]:
    """Collects the types of the images that enter the module's first convolutions from now on."""
    found: set[str] = set()

    def note(_: nn.Module, arguments: tuple[Any, ...]) -> None:
        if torch.is_tensor(arguments[0]) and arguments[0].ndim == 4 and arguments[0].shape[1] == 3:
            found.add(str(arguments[0].dtype)[6:])

    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            part.register_forward_pre_hook(note)
    return found


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
            memory.label((value for value in state.values() if torch.is_tensor(value)), "optimizer")
    state = program.state()
    kept = state.get("averages") or state.get("best", {}).get("model") or {}
    memory.label(kept.values(), "averages")
