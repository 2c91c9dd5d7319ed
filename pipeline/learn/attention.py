"""Where a Vision Transformer looks: its class token's attention in the last block (paper D.2)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


@torch.no_grad()
def attention_map(model: nn.Module, images: Tensor) -> Tensor:
    """The class token's attention on each patch, mean over heads: images [n, 3, H, W] → float32 [n, h, w].

    The rest to 1 is on the class token itself. Raises `ValueError` for networks that have no such map: CNNs, and
    Transformers without a class token or that attend in windows.
    """
    network: Any = model
    if not getattr(model, "has_class_token", False) or not getattr(model, "blocks", None):
        raise ValueError(
            f"{type(model).__name__} has no class-attention map; only a Vision Transformer with a class token has one "
            "(timm's ViT and DeiT)"
        )
    attention = network.blocks[-1].attn
    seen: list[Tensor] = []
    hook = attention.qkv.register_forward_hook(lambda module, inputs, output: seen.append(output))
    was = model.training
    try:
        model.eval()(images)
    finally:
        hook.remove()
        model.train(was)
    n, tokens, _ = seen[0].shape
    query, key, _ = seen[0].reshape(n, tokens, 3, attention.num_heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
    query, key = attention.q_norm(query[:, :, :1]).float(), attention.k_norm(key).float()
    row: Tensor = (query * attention.scale @ key.transpose(-2, -1)).softmax(dim=-1).mean(dim=1)[:, 0]  # [n, tokens]
    sides = zip(images.shape[2:], network.patch_embed.patch_size, strict=True)
    height, width = (side // patch for side, patch in sides)
    return row[:, network.num_prefix_tokens :].reshape(n, height, width)
