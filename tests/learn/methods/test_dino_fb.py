"""DINO by its authors' recipe: its terms, its last layer, its schedules, and its small crops."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pytest
import tiny
import torch
from torch import nn
from vit_pytorch.dino import loss_fn

from pipeline.learn import backbones, positions
from pipeline.learn.distillation import crossed_entropy
from pipeline.learn.methods import dino_fb
from pipeline.learn.samples import draws
from pipeline.runs.spec import DatasetRef
from pipeline.study import paper, recipes

PIXELS = torch.randint(0, 256, (4, 32, 32, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def make(arm: int = 1, epochs: int = 4, **options) -> dino_fb.DinoFb:
    torch.manual_seed(0)
    ref, preset = DatasetRef(name="none", fingerprint="0" * 16), paper.preset("paper")
    spec = recipes.dino(ref, tiny.BACKBONES[arm], recipes.FACEBOOK, preset=preset, seed=77, image_size=32)
    spec = recipes.with_options(spec, {**tiny.SMALL, "bottleneck": 16, "local_crops": 3, **options})
    spec = dataclasses.replace(spec, epochs=epochs)
    tag = tiny.BACKBONES[arm].tag
    backbone = backbones.build(tag, outputs=0, image_size=32, weights="random", folder=Path("."))
    return dino_fb.build(spec, {tiny.BACKBONES[arm].role: backbone})


def test_ten_views_and_two_targets_make_eighteen_terms():
    generator = torch.Generator().manual_seed(0)
    students = torch.randn(10, 5, 40, generator=generator)
    teachers, centre = torch.randn(2, 5, 40, generator=generator), torch.randn(1, 40, generator=generator)
    ours = crossed_entropy([((t - centre) / 0.04).softmax(dim=-1) for t in teachers], [s / 0.1 for s in students])
    terms = [
        loss_fn(teachers[i], students[j], 0.04, 0.1, centre) for i in range(2) for j in range(10) if i != j
    ]  # vit-pytorch's loss is the same for one pair
    assert len(terms) == 18
    torch.testing.assert_close(ours, torch.stack(terms).mean())


def test_the_student_sees_all_crops_and_the_teacher_the_global_ones():
    method = make(0)
    sizes = {"student": [], "teacher": []}
    for name, encoder in (("student", method.pair.student), ("teacher", method.pair.teacher)):
        encoder.register_forward_pre_hook(lambda module, images, name=name: sizes[name].append(images[0].shape))
    method.loss(*method.inputs(PIXELS, draws("a"), 0.5))
    assert sizes["student"] == [(8, 3, 32, 32), (12, 3, 16, 16)]
    assert sizes["teacher"] == [(8, 3, 32, 32)]


def test_the_last_layer_is_torchs_weight_norm_with_g_held_at_one():
    torch.manual_seed(0)
    ours = dino_fb.Directions(16, 40)
    theirs = nn.Linear(16, 40, bias=False)
    theirs.weight.data.copy_(ours.weight)
    theirs = nn.utils.parametrizations.weight_norm(theirs)
    theirs.parametrizations.weight.original0.data.fill_(1.0)
    x = torch.randn(5, 16)
    torch.testing.assert_close(ours(x), theirs(x))
    ours(x).square().sum().backward()
    theirs(x).square().sum().backward()
    torch.testing.assert_close(ours.weight.grad, theirs.parametrizations.weight.original1.grad, atol=1e-5, rtol=1e-5)


def test_the_last_layer_is_frozen_for_the_first_epoch_and_no_longer():
    method = make(epochs=4)
    for progress, frozen in ((0.0, True), (0.2499, True), (0.25, False), (0.9, False)):
        method.zero_grad(set_to_none=True)
        method.loss(*method.inputs(PIXELS, draws("a"), progress))["loss"].backward()
        assert (method.pair.student.last.weight.grad is None) is frozen
        assert method.pair.student.projection.layers[0].weight.grad is not None


def test_the_teachers_momentum_goes_to_one_along_half_a_cosine():
    for progress in (0.0, 0.25, 0.9):
        method = make()
        for parameter in method.pair.teacher.parameters():
            parameter.data.zero_()
        method.after_step(progress)
        momentum = 1 - (1 - 0.996) * (math.cos(math.pi * progress) + 1) / 2  # facebookresearch/dino's form
        pairs = zip(method.pair.teacher.parameters(), method.pair.student.parameters(), strict=True)
        for ours, student in pairs:
            torch.testing.assert_close(ours, (1 - momentum) * student, atol=1e-7, rtol=1e-4)


def test_the_teachers_batch_norm_keeps_statistics_of_its_own():
    method = make(0).train()
    method.loss(*method.inputs(PIXELS, draws("a"), 0.5))
    method.after_step(0.5)
    teacher, student = (dict(one.named_buffers()) for one in (method.pair.teacher, method.pair.student))
    means = [name for name in teacher if name.endswith("running_mean")]
    assert means and not any(torch.equal(teacher[name], student[name]) for name in means)


def test_fine_tuning_takes_the_teacher():
    method = make(1)
    assert method.arms()["transformer"] is method.pair.teacher.projection.backbone
    assert method.monitored()["transformer"].backbone is method.arms()["transformer"]


def test_a_backbone_of_one_size_only_is_refused_with_what_to_take_instead():
    swin = backbones.build(
        "swin_tiny_patch4_window7_224.ms_in1k", outputs=0, image_size=224, weights="random", folder=Path(".")
    )
    with pytest.raises(ValueError, match="takes images of one size only, so no crops of 96 pixels; use a CNN"):
        positions.Resized(swin, 96, "backbone")


def test_small_crops_are_whole_patches():
    with pytest.raises(ValueError, match="crops of 20 pixels do not divide into test_vit.r160_in1k's patches of 16"):
        make(1, local_side=20)
    ref = DatasetRef(name="none", fingerprint="0" * 16)
    sides = {
        size: recipes.dino(
            ref, paper.VIT_B16, recipes.FACEBOOK, preset=paper.preset("paper"), seed=77, image_size=size
        ).method.options["local_side"]
        for size in (32, 64, 224, 384)
    }
    assert sides == {32: 16, 64: 32, 224: 96, 384: 160}
