"""Optimizers: what AdamW decays, what the schedule sets, and clipping each gradient by its own norm."""

import pytest
import torch
from torch import nn

from pipeline.learn import optim
from pipeline.runs.spec import Optim

ADAMW = Optim(
    name="adamw", lr=0.1, weight_decay=0.04, last_weight_decay=0.4, schedule="once", min_lr=0.01, warmup=0.1, clip=3.0
)


def test_adamw_decays_matrices_and_not_biases_and_norms_as_torch_would():
    torch.manual_seed(0)
    ours, theirs = (nn.Sequential(nn.Linear(3, 3), nn.LayerNorm(3)) for _ in range(2))
    theirs.load_state_dict(ours.state_dict())
    optimizer = optim.build(ADAMW, ours.parameters())
    plain = [p for name, p in theirs.named_parameters() if name != "0.weight"]
    oracle = torch.optim.AdamW([{"params": [theirs[0].weight]}, {"params": plain, "weight_decay": 0.0}])
    x = torch.randn(4, 3)
    for step in range(4):
        progress = step / 4
        optim.schedule(optimizer, ADAMW, step=step, epoch=0, progress=progress)
        for group in oracle.param_groups:
            group["lr"] = ADAMW.lr_at(step=step, epoch=0, progress=progress)
        oracle.param_groups[0]["weight_decay"] = ADAMW.weight_decay_at(progress)
        for model, one in ((ours, optimizer), (theirs, oracle)):
            one.zero_grad()
            model(x).square().sum().backward()
            one.step()
    for found, expected in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(found, expected)


def test_the_schedule_sets_every_rate_and_only_the_decay_that_moves():
    model = nn.Linear(2, 2)
    adam = Optim(name="adam", lr=0.1, weight_decay=0.3, schedule="constant")
    optimizer = optim.build(adam, model.parameters())
    assert optim.schedule(optimizer, adam, step=5, epoch=1, progress=0.5) == 0.1
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.3]
    optimizer = optim.build(ADAMW, model.parameters())
    rate = optim.schedule(optimizer, ADAMW, step=5, epoch=1, progress=0.55)
    assert [group["lr"] for group in optimizer.param_groups] == [rate, rate] == pytest.approx([0.055, 0.055])
    decays = [group["weight_decay"] for group in optimizer.param_groups]
    assert decays == [ADAMW.weight_decay_at(0.55), 0.0]


def test_each_gradient_is_clipped_by_its_own_norm():
    first, second, none = (nn.Parameter(torch.zeros(2)) for _ in range(3))
    first.grad, second.grad = torch.tensor([30.0, 40.0]), torch.tensor([0.3, 0.4])
    optim.clip(torch.optim.SGD([first, second, none], lr=1.0), 5.0)
    torch.testing.assert_close(first.grad, torch.tensor([3.0, 4.0]), atol=1e-4, rtol=0)
    assert torch.equal(second.grad, torch.tensor([0.3, 0.4])) and none.grad is None


def test_momentum_is_zero_until_the_first_step_that_a_scaler_takes():
    """Fused SGD makes its buffers unwritten in a step that is skipped, and would continue from whatever they hold."""
    torch.manual_seed(0)
    weight = torch.nn.Parameter(torch.randn(64, 64))
    spec = Optim(name="sgd", lr=0.1, momentum=0.9)
    optimizer = optim.build(spec, [weight])
    before = weight.detach().clone()
    weight.grad = torch.full_like(weight, float("inf"))
    scaler = torch.amp.GradScaler("cpu")
    scaler.scale(torch.zeros(1))
    scaler.step(optimizer)
    scaler.update()
    assert torch.equal(weight, before)
    weight.grad = torch.ones_like(weight) * scaler.get_scale()
    scaler.step(optimizer)
    assert torch.allclose(weight, before - 0.1)
