"""Lets a ViT take images of another size than it was built for: its position embeddings, learnt and rotary."""

from __future__ import annotations

import copy
from typing import Any, cast

import torch
from torch import Tensor, nn


class Resized:
    """Runs a module that holds a backbone as `prefix` on images of `side` pixels instead of its own size.

    Convolutional networks take any size. A ViT's position embedding is multiplied by a fixed matrix instead of being
    resampled in the graph: the backward pass of bicubic resampling is not deterministic on CUDA. Rotary embeddings
    (`Eva`: DINOv3, EVA-02) are computed for the other grid, as timm does. Raises `ValueError` for other networks.
    """

    def __init__(self, backbone: nn.Module, side: int, prefix: str) -> None:
        from timm.models.eva import Eva
        from timm.models.vision_transformer import VisionTransformer

        self.name = f"{prefix}.pos_embed"
        self.matrix: Tensor | None = None
        self.buffers: dict[str, Tensor] = {}
        """Of the rotary embeddings, for the other grid."""
        config: Any = backbone.pretrained_cfg
        self.own_size = not config["fixed_input_size"]
        """Whether the network takes images of any size as they are."""
        if self.own_size:
            return
        tag = f"{config['architecture']}.{config['tag']}"
        rope: Any = getattr(backbone, "rope", None)
        known = isinstance(backbone, (VisionTransformer, Eva)) and (backbone.pos_embed is not None or rope is not None)
        if not known or (rope is not None and not _is_plain(rope, backbone)):
            raise ValueError(
                f"{tag} takes images of one size only, so no crops of {side} pixels; use a CNN, a ViT or a method "
                "whose crops have the image's size (dino)"
            )
        embed: Any = backbone.patch_embed
        if side % embed.patch_size[0]:
            raise ValueError(f"crops of {side} pixels do not divide into {tag}'s patches of {embed.patch_size[0]}")
        if backbone.pos_embed is None and backbone.dynamic_img_size:
            self.own_size = True  # DINOv3: its rotary embeddings are of the image that comes
            return
        grid = side // embed.patch_size[0]
        if backbone.pos_embed is not None:
            prefixes = 0 if backbone.no_embed_class else cast(int, backbone.num_prefix_tokens)
            self.matrix = position_matrix(embed.grid_size[0], grid, prefixes)
        if rope is not None:
            resized = copy.deepcopy(rope)
            resized.update_feat_shape([grid, grid])
            self.buffers = {f"{prefix}.rope.{name}": buffer for name, buffer in resized.named_buffers()}
        # switch off timm's own resampling
        network: Any = backbone
        network.dynamic_img_size, embed.flatten, embed.strict_img_size = False, True, False

    def __call__(self, module: nn.Module, images: Tensor) -> Tensor:
        """The module's output for images [n, 3, side, side]; gradients reach the position embedding itself."""
        if self.own_size:
            return cast(Tensor, module(images))
        self.buffers = {name: buffer.to(images.device) for name, buffer in self.buffers.items()}
        replaced = dict(self.buffers)
        if self.matrix is not None:
            own = module.get_parameter(self.name)
            self.matrix = self.matrix.to(own.device)
            with torch.autocast(images.device.type, enabled=False):
                replaced[self.name] = self.matrix @ own
        return cast(Tensor, torch.func.functional_call(module, replaced, (images,)))


def _is_plain(rope: Any, backbone: Any) -> bool:
    """Whether rotary embeddings are known for one grid, or need no learnt ones to be resampled with them."""
    held = getattr(rope, "feat_shape", None) is not None
    return (held or backbone.pos_embed is None) and hasattr(rope, "update_feat_shape") and not rope.aug_active


def position_matrix(old: int, new: int, prefixes: int) -> Tensor:
    """The matrix [prefixes + new², prefixes + old²] that resamples a grid of old × old positions as timm does.

    Bicubic with antialiasing; the first `prefixes` tokens (class, registers) are kept.
    """
    basis = torch.eye(old * old).view(old * old, 1, old, old)
    grid = nn.functional.interpolate(basis, size=(new, new), mode="bicubic", antialias=True)
    matrix = torch.zeros(prefixes + new * new, prefixes + old * old)
    matrix[:prefixes, :prefixes] = torch.eye(prefixes)
    matrix[prefixes:, prefixes:] = grid.view(old * old, new * new).T
    return matrix
