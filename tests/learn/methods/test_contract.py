"""What every method keeps: it takes steps, its checkpoint round-trips, its arms are what a spec names."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import tiny
import torch

from pipeline.learn import backbones
from pipeline.learn.method import Method
from pipeline.learn.methods import METHODS
from pipeline.learn.samples import draws
from pipeline.runs.methods import METHOD_INFO
from pipeline.runs.spec import REVISIONS, DatasetRef, PretrainSpec
from pipeline.study import paper, recipes

REF = DatasetRef(name="none", fingerprint="0" * 16)
PIXELS = torch.randint(0, 256, (4, 32, 32, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def specs() -> dict[str, PretrainSpec]:
    preset = paper.preset("paper")
    cass = recipes.cass(REF, tiny.BACKBONES, preset=preset, seed=77)
    guarded = recipes.cass_vc(REF, tiny.BACKBONES, seed=77)
    of_two = (cass, guarded, *recipes.controls(cass).values())
    out = {spec.method.name: dataclasses.replace(spec, batch_size=4, image_size=tiny.SIZE) for spec in of_two}
    for arm, backbone in zip(("cnn", "vit"), tiny.BACKBONES, strict=True):
        for method, kind, options in (
            ("dino", recipes.VIT_PYTORCH, tiny.SMALL),
            ("dino_fb", recipes.FACEBOOK, {**tiny.SMALL, "bottleneck": 16, "local_crops": 2}),
        ):
            spec = recipes.dino(REF, backbone, kind, preset=preset, seed=77, batch_size=4, image_size=tiny.SIZE)
            out[f"{method}-{arm}"] = recipes.with_options(spec, options)
    return out


def build(spec: PretrainSpec, seed: int = 0) -> Method:
    torch.manual_seed(seed)
    plugin = METHODS.find(spec.method.name)
    arms = {
        arm.name: backbones.build(
            arm.backbone, outputs=plugin.outputs(spec), image_size=spec.image_size, weights="random", folder=Path(".")
        )
        for arm in spec.arms
    }
    return plugin.build(spec, arms).train()


def take(method: Method, steps: range) -> list[float]:
    optimizer = torch.optim.SGD([p for name in method.arms() for p in method.parameters_of(name)], lr=0.01)
    losses = []
    for step in steps:
        scalars = method.loss(*method.inputs(PIXELS, draws("step", step), step / 10))
        assert all(value.ndim == 0 for value in scalars.values())
        optimizer.zero_grad()
        scalars["loss"].backward()
        optimizer.step()
        method.after_step(step / 10)
        losses.append(scalars["loss"].item())
    return losses


def test_every_method_is_tried_here():
    names = {spec.method.name for spec in specs().values()}
    assert names == set(METHODS.names()) == set(METHOD_INFO) and names <= set(REVISIONS)
    for spec in specs().values():
        assert set(spec.method.options) == set(METHODS.find(spec.method.name).OPTIONS)


@pytest.mark.parametrize("name", specs())
def test_a_method_takes_steps_and_continues_from_its_state_alone(name):
    spec = specs()[name]
    method = build(spec)
    before = {key: value.clone() for key, value in method.state_dict().items()}
    take(method, range(2))
    saved = {key: value.clone() for key, value in method.state_dict().items()}
    assert any(not torch.equal(saved[key], before[key]) for key in saved)
    other = build(spec, seed=1)
    other.load_state_dict(saved)
    assert take(method, range(2, 4)) == take(other, range(2, 4))
    assert all(torch.equal(value, other.state_dict()[key]) for key, value in method.state_dict().items())


@pytest.mark.parametrize("name", specs())
def test_the_arms_are_the_specs_and_every_trainable_parameter_has_one_optimizer(name):
    spec = specs()[name]
    method = build(spec)
    assert list(method.arms()) == list(method.monitored()) == [arm.name for arm in spec.arms]
    listed = [id(p) for arm in method.arms() for p in method.parameters_of(arm)]
    assert sorted(listed) == sorted(id(p) for p in method.parameters() if p.requires_grad)
    for watched in method.monitored().values():
        outputs = backbones.forward_in_batches(watched, [torch.rand(2, 3, 32, 32), torch.rand(1, 3, 32, 32)])
        assert outputs.shape[0] == 3 and outputs.ndim == 2


@pytest.mark.parametrize("name", specs())
def test_no_gradient_reaches_what_no_optimizer_trains(name):
    method = build(specs()[name])
    method.loss(*method.inputs(PIXELS, draws("a"), 0.5))["loss"].backward()
    trained = {id(p) for arm in method.arms() for p in method.parameters_of(arm)}
    assert all(p.grad is None for p in method.parameters() if id(p) not in trained)
    assert sum(p.grad is not None for p in method.parameters()) > 10


@pytest.mark.parametrize("name", ["cass", "cass_vc", "cass_shuffled", "bn_only"])
def test_a_method_of_two_arms_refuses_one(name):
    with pytest.raises(ValueError, match=f"{name} trains two arms against each other; the spec names 1: cnn"):
        METHODS.find(name).build(specs()[name], {"cnn": torch.nn.Identity()})


@pytest.mark.parametrize("name", ["dino", "dino_fb"])
def test_a_method_of_one_arm_refuses_two(name):
    spec = specs()["cass"]
    with pytest.raises(ValueError, match="trains one backbone a run; the spec names 2: cnn, transformer"):
        METHODS.find(name).build(spec, {"cnn": torch.nn.Identity(), "transformer": torch.nn.Identity()})
