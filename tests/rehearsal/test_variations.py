"""The rows of `make gpu`'s table of steps, as far as a pretended GPU can take them."""

from __future__ import annotations

import pytest
import torch
from rehearsals import tiny_spec

from pipeline.benchmarks.gpu.variations import VARIATIONS, TwoStreams, Variation, change
from pipeline.benchmarks.support import limits
from pipeline.rehearsal.cuda import Gpu, pretended
from pipeline.rehearsal.programs import rehearsed

AMPERE, TURING = Gpu(capability=(8, 0)), Gpu(capability=(7, 5))
TAKEN = [v for v in VARIATIONS if v.streams or (v.channels_last and not v.any_algorithms)]
"""Those that no other rehearsal takes."""


@pytest.mark.parametrize("variation", TAKEN, ids=[variation.name for variation in TAKEN])
def test_a_variation_takes_its_steps_without_waits_and_trains_every_parameter(variation: Variation):
    spec = tiny_spec("cass", batch_size=2)
    with rehearsed(spec, "bfloat16", AMPERE) as (seen, trainer):
        change(trainer.program, variation)
        seen.waits.clear()
        for _ in range(2):
            trainer.take_step()
        parameters = list(trainer.program.module.parameters())
        assert all(parameter.grad is not None for parameter in parameters)
        assert not seen.mixed and not seen.gradients
        assert {part for part, *_ in seen.waits} <= {"loading"}
        assert isinstance(trainer.program.module, TwoStreams) == variation.streams
        if variation.channels_last:
            first = next(p for p in parameters if p.ndim == 4 and p.shape[1] > 1)
            assert first.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    ("gpu", "lacking"), [(TURING, {"with TF32", "bfloat16"}), (AMPERE, set())], ids=["sm_75", "sm_80"]
)
def test_what_a_gpu_cannot_compute_is_said(gpu: Gpu, lacking: set[str], monkeypatch):
    monkeypatch.setattr(limits, "can_compile", lambda device: True)
    with pretended(gpu):
        said = {variation.name: variation.lacks("cuda") for variation in VARIATIONS}
    assert {name.split(maxsplit=1)[1].removeprefix("float32 ") for name, why in said.items() if why} == lacking
