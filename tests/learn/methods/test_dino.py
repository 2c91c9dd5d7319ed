"""DINO against vit-pytorch's, the implementation that the paper names: loss, centring and a whole step."""

from __future__ import annotations

import copy
import dataclasses
import inspect
from pathlib import Path

import pytest
import tiny
import torch
from torch import Tensor, nn
from vit_pytorch import dino as oracle

from pipeline.learn import backbones
from pipeline.learn.crops import recoloured_crops
from pipeline.learn.distillation import crossed_entropy
from pipeline.learn.methods import dino
from pipeline.learn.samples import draws
from pipeline.runs.spec import DatasetRef, PretrainSpec
from pipeline.study import paper, recipes

PIXELS = torch.randint(0, 256, (6, 32, 32, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def spec(arm: int = 0, preset: str = "paper", **options) -> PretrainSpec:
    ref = DatasetRef(name="none", fingerprint="0" * 16)
    standard = recipes.dino(ref, tiny.BACKBONES[arm], preset=paper.preset(preset), seed=77, image_size=32)
    return recipes.with_options(standard, {**tiny.SMALL, **options})


def make(arm: int = 0, **options) -> dino.Dino:
    wanted = spec(arm, **options)
    torch.manual_seed(0)
    tag = tiny.BACKBONES[arm].tag
    backbone = backbones.build(tag, outputs=0, image_size=32, weights="random", folder=Path("."))
    return dino.build(wanted, {tiny.BACKBONES[arm].role: backbone})


class Given(nn.Module):
    """In the place of a random crop: the crops that ours took, one a call."""

    def __init__(self, images: list[Tensor]) -> None:
        super().__init__()
        self.images = list(images)

    def forward(self, _: Tensor) -> Tensor:
        return self.images.pop(0)


def theirs(method: dino.Dino) -> oracle.Dino:
    """vit-pytorch's with the weights and the centre of ours."""
    torch.manual_seed(0)
    out = oracle.Dino(
        copy.deepcopy(method.pair.student.projection.backbone),
        image_size=32,
        num_classes_K=64,
        projection_hidden_size=32,
        augment_fn=nn.Identity(),
        augment_fn2=nn.Identity(),
    )
    for encoder, ours in ((out.student_encoder, method.pair.student), (out.teacher_encoder, method.pair.teacher)):
        encoder.net.load_state_dict(ours.projection.backbone.state_dict())
        head = [*ours.projection.layers.parameters(), *ours.last.parameters()]
        for parameter, value in zip(encoder.projector.parameters(), head, strict=True):
            parameter.data.copy_(value)
    out.teacher_centers.copy_(method.pair.centre)
    return out


def test_its_numbers_are_vit_pytorchs_defaults():
    default = {name: p.default for name, p in inspect.signature(oracle.Dino.__init__).parameters.items()}
    ours = paper.DINO_OPTIONS
    assert ours["hidden"] == default["projection_hidden_size"] and ours["layers"] == default["projection_layers"]
    assert ours["student_temperature"] == default["student_temp"]
    assert ours["teacher_temperature"] == default["teacher_temp"]
    assert ours["teacher_momentum"] == default["moving_average_decay"]
    assert ours["centre_momentum"] == default["center_moving_average_decay"]
    assert ours["local_most"] == default["local_upper_crop_scale"]
    assert ours["global_least"] == default["global_lower_crop_scale"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_crossed_loss_is_two_of_vit_pytorchs(dtype):
    generator = torch.Generator().manual_seed(0)
    student, teacher = torch.randn(2, 2, 5, 40, generator=generator, dtype=dtype)
    centre = torch.randn(1, 40, generator=generator, dtype=dtype)
    targets = [((t - centre) / 0.04).softmax(dim=-1) for t in teacher]
    ours = crossed_entropy(targets, [s / 0.9 for s in student])
    both = [oracle.loss_fn(teacher[i], student[1 - i], 0.04, 0.9, centre) for i in (0, 1)]
    torch.testing.assert_close(ours, sum(both) / 2)


@pytest.mark.parametrize("arm", [0, 1], ids=["cnn", "vit"])
def test_whole_steps_are_vit_pytorchs_with_the_same_weights_and_crops(arm):
    method = make(arm)
    generator = torch.Generator().manual_seed(1)
    for parameter in method.pair.teacher.parameters():  # a teacher that is not the student any more
        parameter.data += 0.01 * torch.randn(parameter.shape, generator=generator)
    method.pair.centre.normal_(generator=generator)
    other = theirs(method)
    sgd = [torch.optim.SGD(module.parameters(), lr=0.05) for module in (method.pair.student, other.student_encoder)]
    method.train()
    for step in range(3):
        generator = draws("step", step)
        views = [
            recoloured_crops(PIXELS, method.augmentation, method.crops, generator, one_draw=False) for _ in range(2)
        ]
        other.local_crop = Given([local for local, _ in views])
        other.global_crop = Given([whole for _, whole in views])
        losses = [method.loss(*method.inputs(PIXELS, draws("step", step), 0.0))["loss"], other(PIXELS)]
        torch.testing.assert_close(losses[0], losses[1], atol=1e-5, rtol=1e-5)
        for optimizer, loss in zip(sgd, losses, strict=True):
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        method.after_step(0.0)
        other.update_moving_average()
        torch.testing.assert_close(method.pair.centre, other.teacher_centers, atol=1e-5, rtol=1e-5)
        pairs = ((method.pair.student, other.student_encoder), (method.pair.teacher, other.teacher_encoder))
        for mine, its in pairs:
            for ours, found in zip(mine.parameters(), its.parameters(), strict=True):
                torch.testing.assert_close(ours, found, atol=1e-5, rtol=1e-4)


def test_batch_norms_buffers_are_copied_to_the_teacher():
    method = make(0)
    method.train()
    method.loss(*method.inputs(PIXELS, draws("a"), 0.0))
    assert not _same_buffers(method)
    method.after_step(0.0)
    assert _same_buffers(method)


def _same_buffers(method: dino.Dino) -> bool:
    pair = zip(method.pair.teacher.buffers(), method.pair.student.buffers(), strict=True)
    return all(torch.equal(ours, theirs) for ours, theirs in pair)


def test_fine_tuning_takes_the_student_and_the_monitor_sees_what_it_takes():
    method = make(1).eval()
    (name,) = method.arms()
    assert name == "transformer"
    assert method.arms()[name] is method.pair.student.projection.backbone
    images = torch.rand(3, 3, 32, 32)
    seen = method.monitored()[name](images)
    assert torch.equal(
        seen, method.arms()[name].forward_head(method.arms()[name].forward_features(images), pre_logits=True)
    )


def test_the_teachers_entropy_is_one_when_it_is_uniform():
    method = make(0)
    logits = [torch.zeros(4, 64)] * 2
    found = method.pair.loss(logits, logits, student_temperature=0.9, teacher_temperature=0.04)
    assert found["teacher_entropy"].item() == pytest.approx(1.0)
    sharp = [torch.nn.functional.one_hot(torch.arange(4), 64).float()] * 2
    found = method.pair.loss(sharp, sharp, student_temperature=0.9, teacher_temperature=0.01)
    assert found["teacher_entropy"].item() == pytest.approx(0.0, abs=1e-6)


def test_the_notebook_preset_draws_once_for_the_batch():
    assert spec(preset="notebook").method.options["batch_draws"] is True
    assert spec().method.options["batch_draws"] is False
    same = PIXELS[:1].repeat(4, 1, 1, 1)
    method = make(1, batch_draws=True).eval()
    logits = []
    method.pair.student.register_forward_hook(lambda module, images, out: logits.append(out))
    method.loss(*method.inputs(same, draws("a"), 0.0))
    assert all((out - out[:1]).abs().max() < 1e-5 for out in logits)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"out_dim": 1}, "out_dim is 1, layers is 4; both are 2 or more"),
        ({"out_dim": 0.5}, "option 'out_dim' of dino is 0.5; its type is int"),
        ({"batch_draws": 1}, "option 'batch_draws' of dino is 1; its type is bool"),
        ({"student_temperature": 0.0}, "student_temperature is 0.0; it must be above zero"),
    ],
)
def test_an_option_that_makes_no_sense_is_an_error(options, message):
    with pytest.raises(ValueError, match=message):
        make(0, **options)


def test_an_option_that_lacks_is_named():
    wanted = spec()
    method = dataclasses.replace(wanted.method, options=tiny.SMALL)
    with pytest.raises(ValueError, match="dino lacks the option 'layers'; pipeline/study/recipes.py gives all"):
        dino.build(dataclasses.replace(wanted, method=method), {"cnn": nn.Identity()})
