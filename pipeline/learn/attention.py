"""Where a Vision Transformer looks: the class attention of its last block, or attention rollout (paper D.2)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


def attention_map(model: nn.Module, images: Tensor, *, rollout: bool = False) -> Tensor:
    """The share of its attention that the model's summary gives each patch: images [n, 3, H, W] → float32 [n, h, w].

    The class token's row in the last block, mean over heads. A Vision Transformer without a class token has the mean
    over its patches' rows instead. What is missing to 1 is on the class token and other prefix tokens. With `rollout`
    the rows of all blocks are multiplied back to the input, each averaged with the identity (Abnar and Zuidema, 2020,
    arXiv 2005.00928). The model keeps its mode.

    Raises `ValueError` for networks that have no such map: CNNs, and Transformers like Swin that attend in windows.
    """
    blocks: list[Any] = _attention_blocks(model)
    blocks = blocks if rollout else blocks[-1:]
    whole: Tensor | None = None  # [n, tokens, tokens]

    def look(dropout: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        nonlocal whole
        weights = inputs[0].float().mean(dim=1)  # of [n, heads, tokens, tokens]
        if rollout:
            kept = (weights + torch.eye(weights.shape[-1], device=weights.device)) / 2
            whole = kept if whole is None else kept @ whole
        else:
            whole = weights

    was, fused = model.training, [block.fused_attn for block in blocks]
    hooks = [block.attn_drop.register_forward_pre_hook(look) for block in blocks]
    try:
        model.eval()
        for block in blocks:
            block.fused_attn = False  # a fused kernel keeps its weights to itself
        with torch.no_grad():
            model(images)
    finally:
        for block, before, hook in zip(blocks, fused, hooks, strict=True):
            block.fused_attn = before
            hook.remove()
        model.train(was)
    assert whole is not None
    network: Any = model
    first = network.num_prefix_tokens
    row = whole[:, 0] if has_class_token(model) else whole[:, first:].mean(dim=1)
    height, width = (
        side // patch for side, patch in zip(images.shape[2:], network.patch_embed.patch_size, strict=True)
    )
    return row[:, first:].reshape(len(images), height, width)


def has_class_token(model: nn.Module) -> bool:
    """Whether the attention map of this Vision Transformer is that of its class token."""
    return model.cls_token is not None


def _attention_blocks(model: nn.Module) -> list[nn.Module]:
    """The self-attention of every block, in order; timm builds DINOv3 and EVA-02 as `Eva`."""
    from timm.models.eva import AttentionRope, Eva, EvaAttention
    from timm.models.vision_transformer import Attention, VisionTransformer

    kinds = (Attention, AttentionRope, EvaAttention)
    found = [module for module in model.modules() if type(module) in kinds]
    if not isinstance(model, (VisionTransformer, Eva)) or not found or len(found) != len(model.blocks):
        raise ValueError(
            f"{type(model).__name__} has no class-attention map: only a Vision Transformer has one whose blocks attend "
            "over the whole image (timm's ViT and DeiT, and Eva: DINOv3)"
        )
    return found
