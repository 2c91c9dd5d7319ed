"""A ViT on images of another size: its position matrix against timm's own resampling, and its gradients."""

from __future__ import annotations

from pathlib import Path

import given
import pytest
import torch
from timm.layers import resample_abs_pos_embed
from torch import nn

from pipeline.learn import backbones, positions


class Holder(nn.Module):
    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return backbones.features(self.backbone, images)


def build(tag: str, size: int) -> nn.Module:
    torch.manual_seed(0)
    return backbones.build(tag, outputs=0, image_size=size, weights="random", folder=Path(".")).eval()


@pytest.mark.parametrize(("old", "new", "prefixes"), [(24, 10, 1), (14, 6, 0), (2, 1, 1), (6, 9, 5), (4, 4, 1)])
def test_the_matrix_resamples_as_timm_does(old, new, prefixes):
    generator = torch.Generator().manual_seed(0)
    embedding = torch.randn(1, prefixes + old * old, 8, generator=generator)
    theirs = resample_abs_pos_embed(embedding, [new, new], [old, old], num_prefix_tokens=prefixes)
    ours = positions.position_matrix(old, new, prefixes) @ embedding
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("tag", ["test_vit.r160_in1k", "test_vit3.r160_in1k"])
def test_small_images_through_a_vit_are_timms_dynamic_size(tag):
    import timm

    holder = Holder(build(tag, 64))
    oracle = timm.create_model(tag, num_classes=0, img_size=64, dynamic_img_size=True).eval()
    oracle.load_state_dict(holder.backbone.state_dict())
    resized = positions.Resized(holder.backbone, 32, "backbone")
    small, large = (torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(1)) for side in (32, 64))
    torch.testing.assert_close(resized(holder, small), oracle(small), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(holder(large), oracle(large), atol=1e-5, rtol=1e-4)
    resized(holder, small).square().sum().backward()
    oracle(small).square().sum().backward()
    torch.testing.assert_close(holder.backbone.pos_embed.grad, oracle.pos_embed.grad, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize(
    ("tag", "changes"),
    [
        (given.TAG, {}),
        (given.TAG, {"rope_type": "mixed", "rope_rotate_half": False}),
        ("vit_base_patch16_rope_ape_224", {}),
        ("vit_base_patch16_rope_mixed_ape_224", {}),
        ("eva02_base_patch16_clip_224", {}),
        ("eva_giant_patch14_224", {"patch_size": 16}),
    ],
)
def test_small_images_through_an_eva_are_timms_dynamic_size(tag, changes):
    """Learnt positions are resampled, rotary ones computed for the other grid; full images stay as they are."""
    holder = Holder(given.model(64, outputs=0, tag=tag, **changes))
    oracle = given.model(64, outputs=0, tag=tag, dynamic_img_size=True, **changes)
    oracle.load_state_dict(holder.backbone.state_dict())
    resized = positions.Resized(holder.backbone, 32, "backbone")
    small, large = (torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(1)) for side in (32, 64))
    before = holder(large)
    torch.testing.assert_close(resized(holder, small), backbones.features(oracle, small), atol=1e-5, rtol=1e-4)
    assert torch.equal(holder(large), before)
    resized(holder, small).square().sum().backward()
    backbones.features(oracle, small).square().sum().backward()
    for (name, ours), theirs in zip(holder.backbone.named_parameters(), oracle.parameters(), strict=True):
        assert (ours.grad is None) == (theirs.grad is None), name
        if ours.grad is not None:
            torch.testing.assert_close(ours.grad, theirs.grad, atol=1e-3, rtol=1e-2, msg=name)


def test_a_cnn_takes_small_images_as_it_is():
    holder = Holder(build("test_resnet.r160_in1k", 64))
    images = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(positions.Resized(holder.backbone, 32, "backbone")(holder, images), holder(images))


def test_the_features_are_what_the_head_is_put_on():
    for tag in ("test_resnet.r160_in1k", "test_vit.r160_in1k"):
        torch.manual_seed(0)
        model = backbones.build(tag, outputs=5, image_size=64, weights="random", folder=Path(".")).eval()
        images = torch.rand(2, 3, 64, 64)
        found = backbones.features(model, images)
        assert found.shape == (2, model.head_hidden_size)
        torch.testing.assert_close(model.get_classifier()(found), model(images))
