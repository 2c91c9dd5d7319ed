"""The rows of `make gpu`'s table of steps that no other test takes, on a pretended GPU."""

from __future__ import annotations

import pytest
from rehearsals import tiny_spec

from pipeline.benchmarks.gpu.variations import VARIATIONS, TwoStreams, change
from pipeline.benchmarks.support import limits
from pipeline.rehearsal.cuda import Gpu, pretended
from pipeline.rehearsal.programs import rehearsed

AMPERE, TURING = Gpu(capability=(8, 0)), Gpu(capability=(7, 5))


def test_an_arm_a_stream_takes_its_steps_without_waits_and_trains_every_parameter():
    (variation,) = (variation for variation in VARIATIONS if variation.streams)
    with rehearsed(tiny_spec("cass", batch_size=2), "bfloat16", AMPERE) as (seen, trainer):
        change(trainer.program, variation)
        assert isinstance(trainer.program.method, TwoStreams)
        seen.waits.clear()
        for _ in range(2):
            trainer.take_step()
        assert all(parameter.grad is not None for parameter in trainer.program.module.parameters())
        assert not seen.mixed and not seen.gradients
        assert {part for part, *_ in seen.waits} == {"loading"}


@pytest.mark.parametrize(
    ("gpu", "lacking"), [(TURING, {"with TF32", "bfloat16"}), (AMPERE, set())], ids=["sm_75", "sm_80"]
)
def test_what_a_gpu_cannot_compute_is_said(gpu: Gpu, lacking: set[str], monkeypatch):
    monkeypatch.setattr(limits, "can_compile", lambda device: True)
    with pretended(gpu):
        said = {variation.name: variation.lacks("cuda") for variation in VARIATIONS}
    assert {name.split(maxsplit=1)[1].removeprefix("float32 ") for name, why in said.items() if why} == lacking
