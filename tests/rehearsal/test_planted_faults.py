"""A fault of every kind is found: the test of the rehearsal itself."""

from __future__ import annotations

import pytest
import torch
from rehearsals import NO_DETERMINISTIC_KERNEL, tiny_spec

from pipeline.learn import finetune, samples
from pipeline.learn.methods import cass
from pipeline.rehearsal.cuda import TURING
from pipeline.rehearsal.device import MixedDevices
from pipeline.rehearsal.programs import rehearsed
from pipeline.rehearsal.steps import rehearse_step

PLAIN_LOSS, PLAIN_FOCAL = cass.agreement_loss, finetune.focal_loss


def test_class_weights_left_on_the_cpu():
    with rehearsed(tiny_spec("finetune"), "float32", TURING) as (_, trainer):
        trainer.program.weights = torch.ones(8)
        with pytest.raises(MixedDevices, match=r"mul at learn/losses.py:\d+ has tensors on the device and on the host"):
            trainer.take_step()


def test_an_item_in_a_step(monkeypatch):
    monkeypatch.setattr(cass, "agreement_loss", lambda r, t: PLAIN_LOSS(r, t) * (1 + 0 * r.mean().item()))
    waits = rehearse_step(tiny_spec("cass")).seen.waits
    assert [(part, kind) for part, kind, _ in waits if kind != "event"] == [("forward", "item")]


def test_a_choice_of_rows_by_a_mask(monkeypatch):
    monkeypatch.setattr(cass, "agreement_loss", lambda r, t: PLAIN_LOSS(r[r.sum(dim=1) > -1e9], t))
    with pytest.raises(Exception, match="nonzero"):  # its size is known to the device alone
        rehearse_step(tiny_spec("cass"))


def test_slots_that_are_not_pinned(monkeypatch):
    def reserve(self, count, side):
        return torch.empty((count, side, side, 3), dtype=torch.uint8)

    monkeypatch.setattr(samples.Slot, "reserve", reserve)
    seen = rehearse_step(tiny_spec("cass")).seen
    assert [(upload.part, upload.pinned) for upload in seen.uploads if not upload.pinned] == [("loading", False)]
    assert ("loading", "upload from pageable memory") in {(part, kind) for part, kind, _ in seen.waits}


def test_a_loss_of_another_type(monkeypatch):
    monkeypatch.setattr(cass, "agreement_loss", lambda r, t: PLAIN_LOSS(r, t).half())
    assert rehearse_step(tiny_spec("cass"), precision="float16").scalars == {"loss": "float16"}


def test_an_operation_without_a_deterministic_kernel(monkeypatch):
    def focal_loss(logits, *rest, **options):
        return PLAIN_FOCAL(logits - logits.median(dim=1, keepdim=True).values, *rest, **options)

    monkeypatch.setattr(finetune, "focal_loss", focal_loss)
    torch.use_deterministic_algorithms(False)  # else torch refuses it, whatever test ran before
    launched = {operation for _, operation in rehearse_step(tiny_spec("finetune")).seen.launches}
    assert launched & set(NO_DETERMINISTIC_KERNEL["median"])


def test_an_arm_that_learns_nothing(monkeypatch):
    monkeypatch.setattr(cass, "agreement_loss", lambda r, t: PLAIN_LOSS(r, t.detach()))
    missing = rehearse_step(tiny_spec("cass")).without_gradient
    assert missing and all(name.startswith("networks.transformer.") for name in missing)


def test_a_backward_pass_that_keeps_more_is_seen_in_the_memory(monkeypatch):
    spec = tiny_spec("cass")
    before = rehearse_step(spec).peak_bytes
    kept = []

    def keep(r, t):
        kept.append(torch.zeros(1000, 1000, device=r.device))
        return PLAIN_LOSS(r, t)

    monkeypatch.setattr(cass, "agreement_loss", keep)
    assert rehearse_step(spec).peak_bytes - before == pytest.approx(8e6, rel=0.01)  # two steps


def test_torch_is_itself_again_afterwards():
    was = (torch.empty, torch.tensor, torch.autograd.backward, torch.cuda.is_available, samples.ThreadPoolExecutor)
    rehearse_step(tiny_spec("finetune"))
    with pytest.raises(ZeroDivisionError), rehearsed(tiny_spec("finetune"), "float32", TURING):
        raise ZeroDivisionError
    now = (torch.empty, torch.tensor, torch.autograd.backward, torch.cuda.is_available, samples.ThreadPoolExecutor)
    assert all(one is other for one, other in zip(was, now, strict=True))
    layer = torch.nn.Linear(2, 1)
    layer(torch.ones(1, 2)).sum().backward()
    assert layer.weight.grad.tolist() == [[1, 1]]
