"""A step of every program on a pretended GPU: types, devices, waits, uploads, deterministic operations, gradients.

CI rehearses every program with small networks in every precision, and with the paper's standard networks or each of its
eight backbones in float16. `CASS_REHEARSAL=full` rehearses all programs, backbones and precisions at the paper's size.
With `-s` the table is printed (`python -m pipeline.bench rehearsal` prints it without the tests).
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator

import pytest
import torch
from rehearsals import NO_DETERMINISTIC_KERNEL, tiny_spec
from tiny import BACKBONES as TINY

from pipeline.benchmarks.gpu import rehearsed
from pipeline.benchmarks.gpu.rehearsed import PRECISIONS, PROGRAMS, Case
from pipeline.learn import optim
from pipeline.rehearsal.steps import Step, rehearse_step
from pipeline.runs.spec import Spec

FULL = os.environ.get("CASS_REHEARSAL") == "full"
CASES = rehearsed.cases() if FULL else rehearsed.some_cases()
LOADING = {("loading", "event")}
"""The thread that reads ahead waits until its memory was copied; the training does not."""
ROWS: list[tuple[str, ...]] = []


@pytest.fixture(scope="module", autouse=True)
def printed() -> Iterator[None]:
    started = time.monotonic()
    yield
    print("\n" + rehearsed.text(ROWS))
    print(f"{len(ROWS)} steps in {time.monotonic() - started:.0f} s")


def rehearse(case: Case, spec: Spec) -> Step:
    started = time.monotonic()
    step = rehearse_step(spec, precision=case.precision, cuda_graphs=case.graphs)
    ROWS.append(rehearsed.row(case, step, time.monotonic() - started))
    return step


def check(step: Step, precision: str) -> None:
    seen = step.seen
    assert not seen.mixed and not seen.gradients
    assert {(part, kind) for part, kind, _ in seen.waits} == LOADING
    assert seen.uploads and all(upload.pinned and not upload.blocking for upload in seen.uploads)
    assert set(step.scalars.values()) == {"float32"}
    assert step.inputs == {"float32"} or (step.captured and not step.inputs)  # a replay calls no network
    assert step.without_gradient == ()
    for operation in ("convolution", "addmm"):
        assert seen.dtypes.get(("forward", operation), {precision}) == {precision}
    assert (step.captured > 100) == ("replay" in step.launches)
    assert seen.dtypes["augmentation", "div_"] == {"float32"}
    launched = {operation for _, operation in seen.launches}
    assert not launched & {name for names in NO_DETERMINISTIC_KERNEL.values() for name in names}
    assert ("_amp_update_scale_" in launched) == (precision == "float16")


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=["-".join(case.words) for case in CASES])
def test_a_step_of_the_papers_networks(case):
    step = rehearse(case, rehearsed.spec_of(case.program, case.backbone))
    check(step, case.precision)
    assert ("replay" in step.launches) == case.graphs


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("arm", [0, 1], ids=["cnn", "transformer"])
@pytest.mark.parametrize("program", PROGRAMS)
def test_a_step_of_small_networks(program, arm, precision):
    check(rehearse(Case(program, TINY[arm], precision), tiny_spec(program, arm)), precision)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_step_with_gradients_that_are_kept(precision):
    step = rehearse_step(tiny_spec("cass", keep_gradients=True), precision=precision)
    check(step, precision)
    assert step.peak["gradients"] > 0


def test_every_documented_operation_without_a_deterministic_kernel_is_known():
    """An entry that a later torch adds to its list fails here: say what it is called in the dispatcher."""
    text = torch.use_deterministic_algorithms.__doc__.split("operations will throw a")[1].split("In addition")[0]
    entries = re.split(r"\n {8}\* ", text)[1:]
    names = {re.search(r"`torch\.(?:[\w.]*\.)?(\w+)`", entry)[1] for entry in entries if "MPS tensor" not in entry}
    names |= {"scatter_reduce"}  # "CUDA or MPS tensor"
    assert names - {"resize_"} == set(NO_DETERMINISTIC_KERNEL)  # resize_: of quantised tensors


def test_memory_is_told_apart_by_what_it_is_for():
    spec = tiny_spec("cass")
    step = rehearse_step(spec)
    weights = step.peak["weights"]
    assert step.peak["averages"] == pytest.approx(weights, rel=0.01)
    assert step.peak["optimizer"] == pytest.approx(2 * weights, rel=0.05)  # Adam's two moments
    larger = rehearse_step(tiny_spec("cass", batch_size=8))
    assert larger.peak["weights"] == weights
    assert 1.5 < larger.peak["activations"] / step.peak["activations"] < 2.5
    assert rehearse_step(spec, averaging=False).peak["averages"] == 0


def test_a_plain_attention_keeps_its_matrix():
    from pipeline.rehearsal.cuda import Gpu

    spec = tiny_spec("finetune", 1)
    assert rehearse_step(spec, gpu=Gpu(attention="math")).peak_bytes > rehearse_step(spec).peak_bytes


def test_clipping_has_the_bits_of_torch():
    torch.manual_seed(1)
    shapes = [(3, 5), (7,), (1,), (40, 40)]
    ours, theirs = ([torch.nn.Parameter(torch.zeros(shape)) for shape in shapes] for _ in range(2))
    for mine, other, scale in zip(ours, theirs, (0.1, 10.0, 3.0, 1e4), strict=True):
        mine.grad = torch.randn(mine.shape) * scale
        other.grad = mine.grad.clone()
        torch.nn.utils.clip_grad_norm_(other, 3.0)
    optim.clip(torch.optim.SGD(ours, lr=1.0), 3.0)
    assert all(torch.equal(mine.grad, other.grad) for mine, other in zip(ours, theirs, strict=True))
