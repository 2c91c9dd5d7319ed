"""The passes of every program as a CUDA graph on a pretended GPU, and what could not be replayed."""

from __future__ import annotations

import pytest
import torch
from rehearsals import tiny_spec

from pipeline.learn import finetune, graphs
from pipeline.rehearsal.capture import CannotCapture
from pipeline.rehearsal.steps import Step, rehearse_step
from pipeline.study import recipes

PLAIN_FOCAL = finetune.focal_loss


def check(step: Step) -> None:
    assert step.captured > 100
    assert {"forward", "backward", "capture"}.isdisjoint(step.launches)
    assert step.seen.launches["replay", "graph"] == 1
    assert {(part, kind) for part, kind, _ in step.seen.waits} == {("loading", "event")}
    assert step.without_gradient == () and set(step.scalars.values()) == {"float32"}


CASES = (("cass", 0), ("cass_vc", 0), ("dino", 0), ("dino_fb", 1), ("finetune", 0), ("finetune", 1))


@pytest.mark.parametrize(("program", "arm"), CASES)
def test_two_steps_are_the_same_operations_on_the_same_memory(program, arm):
    check(rehearse_step(tiny_spec(program, arm), precision="float16", cuda_graphs=True))


def test_an_order_that_is_drawn_fills_an_input():
    spec = recipes.controls(tiny_spec("cass"))["cass_shuffled"]
    check(rehearse_step(spec, precision="bfloat16", cuda_graphs=True))


def test_gradients_that_are_kept_are_added_to_in_place():
    check(rehearse_step(tiny_spec("cass", keep_gradients=True), precision="float32", cuda_graphs=True))


def rehearse_with(monkeypatch, loss) -> None:
    """Rehearse a fine-tune whose loss is made of the focal one."""
    monkeypatch.setattr(finetune, "focal_loss", lambda *arguments, **options: loss(PLAIN_FOCAL(*arguments, **options)))
    rehearse_step(tiny_spec("finetune"), cuda_graphs=True)


def test_a_number_of_the_step_is_found(monkeypatch):
    steps = iter(range(100))
    with pytest.raises(CannotCapture, match=r"mul at .* has other numbers in another step: 2, 3"):
        rehearse_with(monkeypatch, lambda loss: loss * (1 + next(steps)))


def test_a_branch_of_the_host_is_found(monkeypatch):
    steps = iter(range(100))
    with pytest.raises(CannotCapture, match="is .* in another step"):
        rehearse_with(monkeypatch, lambda loss: loss.exp() if next(steps) % 2 else loss.square())


def test_memory_that_is_new_in_every_step_is_found(monkeypatch):
    held = []

    def loss(plain):
        held.append(held[-1] + 1 if held else torch.zeros((), device=plain.device))
        return plain + held[-1]

    with pytest.raises(CannotCapture, match="add at .* uses other memory in another step"):
        rehearse_with(monkeypatch, loss)


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (lambda loss: loss.item(), "item at"),
        (lambda loss: torch.ones((), device="cpu").to(loss.device), "upload at"),
        (lambda loss: torch.cuda.synchronize() or 0.0, "synchronize at"),
    ],
)
def test_a_wait_is_refused_with_the_reason_and_what_to_do(fault, reason, monkeypatch):
    with pytest.raises(ValueError, match=rf"as a CUDA graph \({reason} .*\); set cuda_graphs = false in the cluster"):
        rehearse_with(monkeypatch, lambda loss: loss + 0 * fault(loss))


def test_memory_that_is_gone_is_found_at_the_replay(monkeypatch):
    held, plain = {}, graphs.Graph.replay

    def loss(plain):
        return plain + held.setdefault("zero", torch.zeros((), device=plain.device))

    def replay(graph, inputs):
        held.clear()
        return plain(graph, inputs)

    monkeypatch.setattr(graphs.Graph, "replay", replay)
    with pytest.raises(CannotCapture, match="add at .* uses memory that was freed since the capture"):
        rehearse_with(monkeypatch, loss)
