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
    blocks = _attention_blocks(model)
    whole: Tensor | None = None  # [n, tokens, tokens]

    def look(block: Any, inputs: tuple[Tensor, ...]) -> None:
        nonlocal whole
        weights = _weights(block, inputs[0]).mean(dim=1)
        if rollout:
            kept = (weights + torch.eye(weights.shape[-1], device=weights.device)) / 2
            whole = kept if whole is None else kept @ whole
        else:
            whole = weights

    was = model.training
    hooks = [block.register_forward_pre_hook(look) for block in (blocks if rollout else blocks[-1:])]
    try:
        model.eval()
        with torch.no_grad():
            model(images)
    finally:
        for hook in hooks:
            hook.remove()
        model.train(was)
    assert whole is not None
    network: Any = model
    first = network.num_prefix_tokens
    row = whole[:, 0] if network.has_class_token else whole[:, first:].mean(dim=1)
    height, width = (
        side // patch for side, patch in zip(images.shape[2:], network.patch_embed.patch_size, strict=True)
    )
    return row[:, first:].reshape(len(images), height, width)


def has_class_token(model: nn.Module) -> bool:
    """Whether the attention map of this Vision Transformer is that of its class token."""
    network: Any = model
    return bool(network.has_class_token)


def _attention_blocks(model: nn.Module) -> list[nn.Module]:
    """The self-attention of every block, in order."""
    from timm.models.vision_transformer import Attention, VisionTransformer

    found = [module for module in model.modules() if type(module) is Attention]
    if not isinstance(model, VisionTransformer) or not found or len(found) != len(model.blocks):
        raise ValueError(
            f"{type(model).__name__} has no class-attention map: only a Vision Transformer has one whose blocks attend "
            "over the whole image (timm's ViT and DeiT)"
        )
    return found


def _weights(attention: Any, tokens: Tensor) -> Tensor:
    """softmax(q·k/√d) of one block, which a fused kernel does not return: tokens [n, t, dim] → [n, heads, t, t]."""
    n, count, _ = tokens.shape
    qkv = attention.qkv(tokens).reshape(n, count, 3, attention.num_heads, attention.head_dim)
    query, key, _ = qkv.permute(2, 0, 3, 1, 4).unbind(0)
    query, key = attention.q_norm(query).float(), attention.k_norm(key).float()
    scores: Tensor = query * attention.scale @ key.transpose(-2, -1)
    return scores.softmax(dim=-1)
