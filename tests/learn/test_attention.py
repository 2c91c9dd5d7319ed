"""Attention maps: against a hand computation, and against timm's own unfused attention."""

from __future__ import annotations

import math

import given
import pytest
import timm
import torch

from pipeline.learn.attention import attention_map, has_class_token


def random_images(size: int, n: int = 2) -> torch.Tensor:
    return torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(0))


def small_vit(kind: str = "vit_tiny_patch16_224", **changes) -> torch.nn.Module:
    torch.manual_seed(0)
    arguments = {"img_size": 64, "depth": 3, "embed_dim": 24, "num_heads": 3, "num_classes": 2, **changes}
    return timm.create_model(kind, **arguments)


def told_by_timm(model: torch.nn.Module, images: torch.Tensor) -> list[torch.Tensor]:
    """Every block's attention [n, heads, tokens, tokens] as timm computes it without a fused kernel."""
    seen: list[torch.Tensor] = []
    for block in model.blocks:
        block.attn.fused_attn = False
        block.attn.attn_drop.register_forward_hook(lambda module, inputs, output: seen.append(output))
    with torch.no_grad():
        model.eval()(images)
    return seen


def test_the_class_tokens_row_is_the_softmax_of_its_query_with_every_key_by_hand():
    model = small_vit(num_heads=1, embed_dim=4, depth=1)
    model.eval()
    images = random_images(64, n=1)
    seen = []
    handle = model.blocks[0].norm1.register_forward_hook(lambda module, inputs, output: seen.append(output[0]))
    found = attention_map(model, images)
    handle.remove()
    tokens = seen[0].detach()  # [17, 4]
    weight, bias = model.blocks[0].attn.qkv.weight.detach(), model.blocks[0].attn.qkv.bias.detach()
    query = weight[:4] @ tokens[0] + bias[:4]
    powers = [math.exp(sum(query * (weight[4:8] @ token + bias[4:8])).item() / 2) for token in tokens]  # √4
    by_hand = [power / sum(powers) for power in powers]
    assert found.shape == (1, 4, 4)
    assert found.flatten().tolist() == pytest.approx(by_hand[1:], rel=1e-5)


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("vit_tiny_patch16_224", {}),
        ("vit_tiny_patch16_224", {"qk_norm": True}),
        ("vit_tiny_patch16_224", {"reg_tokens": 4}),
        ("deit_tiny_patch16_224", {}),
        ("deit_tiny_distilled_patch16_224", {}),
    ],
)
def test_it_is_timms_own_attention_also_with_norms_and_prefix_tokens(kind, changes):
    model, images = small_vit(kind, **changes), random_images(64)
    assert model.blocks[0].attn.fused_attn
    found = attention_map(model, images)
    last = told_by_timm(model, images)[-1].mean(dim=1)
    prefix = model.num_prefix_tokens
    assert prefix == (2 if "distilled" in kind else 1 + changes.get("reg_tokens", 0))
    torch.testing.assert_close(found, last[:, 0, prefix:].reshape(2, 4, 4))
    assert has_class_token(model)


EVAS = [  # the kinds of attention and of positions that timm builds as Eva
    (given.TAG, {}),
    (given.TAG, {"qk_norm": True, "rope_type": "mixed", "rope_rotate_half": False}),
    ("vit_small_patch16_dinov3_qkvb", {}),
    ("eva02_tiny_patch14_224", {"img_size": 56}),
    ("eva02_base_patch16_clip_224", {}),
    ("vit_medium_patch16_rope_reg1_gap_256", {}),
]


@pytest.mark.parametrize(("tag", "changes"), EVAS)
@pytest.mark.parametrize("rollout", [False, True])
def test_networks_that_timm_builds_as_eva_attend_as_it_says(tag, changes, rollout):
    model = given.model(64, tag=tag, **changes)
    assert type(model).__name__ == "Eva"
    images = random_images(changes.get("img_size", 64))
    found, before = attention_map(model, images, rollout=rollout), model(images)
    assert found.shape == (2, 4, 4) and all(block.attn.fused_attn for block in model.blocks)
    torch.testing.assert_close(model(images), before)
    all_blocks = [attention.mean(dim=1) for attention in told_by_timm(model, images)]
    whole = all_blocks[-1]
    if rollout:
        first, last = ((attention + torch.eye(attention.shape[-1])) / 2 for attention in all_blocks)
        whole = last @ first
    prefix = model.num_prefix_tokens
    assert has_class_token(model) == (tag != "vit_medium_patch16_rope_reg1_gap_256")
    row = whole[:, 0] if has_class_token(model) else whole[:, prefix:].mean(dim=1)
    torch.testing.assert_close(found, row[:, prefix:].reshape(2, 4, 4))


def test_rotary_positions_turn_the_patches_queries_and_keys_by_hand():
    """One head of four values: two pairs, each turned by an angle of its own for each patch; the class token is not."""
    model = given.model(64, depth=1, embed_dim=4, num_heads=1)
    seen = []
    handle = model.blocks[0].norm1.register_forward_hook(lambda module, inputs, output: seen.append(output[0]))
    images = random_images(64, n=1)
    found = attention_map(model, images)
    handle.remove()
    tokens = seen[0].detach().double()
    weight = model.blocks[0].attn.qkv.weight.detach().double()
    query, keys = weight[:4] @ tokens[0], tokens @ weight[4:8].T
    prefix = model.num_prefix_tokens
    sines, cosines = model.rope.get_embed(shape=[4, 4]).double().chunk(2, dim=-1)  # [16, 4] each
    patches = keys[prefix:]
    half = torch.cat([-patches[:, 2:], patches[:, :2]], dim=1)  # DINOv3 pairs the first half with the second
    keys = torch.cat([keys[:prefix], patches * cosines + half * sines])
    powers = [math.exp((query @ key).item() / 2) for key in keys]  # √4
    expected = [power / sum(powers) for power in powers[prefix:]]
    assert found.flatten().tolist() == pytest.approx(expected, rel=1e-4)


def test_the_map_follows_the_images_height_and_width():
    model = small_vit(img_size=(32, 96))
    images = torch.randn(1, 3, 32, 96, generator=torch.Generator().manual_seed(1))
    found = attention_map(model, images)
    torch.testing.assert_close(found[0], told_by_timm(model, images)[-1].mean(dim=1)[0, 0, 1:].reshape(2, 6))


def test_without_a_class_token_all_patches_are_asked():
    model, images = small_vit("vit_tiny_patch16_224", class_token=False, global_pool="avg"), random_images(64)
    found = attention_map(model, images)
    torch.testing.assert_close(found, told_by_timm(model, images)[-1].mean(dim=(1, 2)).reshape(2, 4, 4))
    assert not has_class_token(model)


def test_rollout_multiplies_the_blocks_each_half_identity():
    model, images = small_vit(), random_images(64)
    found = attention_map(model, images, rollout=True)
    first, second, third = [(a.mean(dim=1) + torch.eye(17)) / 2 for a in told_by_timm(model, images)]
    torch.testing.assert_close(found, (third @ second @ first)[:, 0, 1:].reshape(2, 4, 4))


def test_a_model_is_left_as_it_was():
    model, images = small_vit(), random_images(64)
    model.train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    attention_map(model, images)
    assert model.training
    assert not any(module._forward_pre_hooks for module in model.modules())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("tag", ["test_resnet.r160_in1k", "swin_tiny_patch4_window7_224"])
def test_networks_without_class_attention_say_so(tag):
    arguments = {"depths": (1, 1, 1, 1), "embed_dim": 12, "num_heads": (1, 1, 1, 1)} if "swin" in tag else {}
    model = timm.create_model(tag, num_classes=2, **arguments)
    with pytest.raises(ValueError, match=f"{type(model).__name__} has no class-attention map.*ViT and DeiT"):
        attention_map(model, random_images(32))
