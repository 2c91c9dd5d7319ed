"""CASS: its loss by hand, its step, and that its state round-trips."""

import pytest
import tiny
import torch
from torch import nn

from pipeline.learn.methods import cass
from pipeline.learn.samples import draws
from pipeline.runs.spec import DatasetRef, PretrainSpec
from pipeline.study import paper, recipes

PIXELS = torch.randint(0, 256, (4, 16, 16, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def spec() -> PretrainSpec:
    ref = DatasetRef(name="none", fingerprint="0" * 16)
    return recipes.cass(ref, tiny.BACKBONES, preset=paper.preset("paper"), seed=77)


def arms() -> dict[str, nn.Module]:
    torch.manual_seed(0)
    return {name: nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 8)) for name in ("cnn", "transformer")}


def test_the_loss_is_two_minus_twice_the_cosine():
    r = torch.tensor([[1.0, 0.0], [3.0, 4.0], [1.0, 1.0]])
    t = torch.tensor([[2.0, 0.0], [-3.0, -4.0], [1.0, -1.0]])
    assert cass.agreement_loss(r, t).item() == pytest.approx((0.0 + 4.0 + 2.0) / 3)


def test_the_loss_agrees_with_torch_and_survives_zero_logits():
    r, t = torch.randn(2, 5, 7, generator=torch.Generator().manual_seed(0))
    expected = (2 - 2 * nn.functional.cosine_similarity(r, t)).mean()
    torch.testing.assert_close(cass.agreement_loss(r, t), expected)
    assert cass.agreement_loss(torch.zeros(1, 7), t[:1]).item() == pytest.approx(2.0)


def test_a_step_moves_both_arms_closer():
    method = cass.build(spec(), arms())
    optimizer = torch.optim.SGD(method.parameters(), lr=0.05)
    losses = []
    before = {name: value.clone() for name, value in method.state_dict().items()}
    for _ in range(5):
        loss = method.loss(*method.inputs(PIXELS, draws("step"), 0.0))["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        method.after_step(0.0)
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    assert all(not torch.equal(value, before[name]) for name, value in method.state_dict().items())


def test_its_state_round_trips():
    method, other = cass.build(spec(), arms()), cass.build(spec(), {k: v.apply(_zero) for k, v in arms().items()})
    other.load_state_dict(method.state_dict())
    inputs = method.inputs(PIXELS, draws("a"), 0.0)
    assert method.loss(*inputs)["loss"].item() == other.loss(*inputs)["loss"].item()


def _zero(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        module.weight.data.zero_()


def test_the_parameters_of_the_arms_are_all_parameters_once():
    method = cass.build(spec(), arms())
    listed = [p for name in method.arms() for p in method.parameters_of(name)]
    assert {id(p) for p in listed} == {id(p) for p in method.parameters()}
    assert len(listed) == len(list(method.parameters()))


def test_one_arm_is_refused():
    with pytest.raises(ValueError, match="two arms"):
        cass.build(spec(), {"cnn": nn.Linear(1, 1)})
