"""The outputs of a CNN's first convolutions for an image, in the order they run (paper D.1)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


def feature_maps(model: nn.Module, images: Tensor, *, count: int) -> list[tuple[str, Tensor]]:
    """The names and outputs [n, channels, h, w] of the first `count` convolutions that run, fewer if there are fewer.

    The model keeps its mode. Raises `ValueError` for a network without convolutions.
    """
    found: list[tuple[str, Tensor]] = []

    def keep(name: str) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Tensor) -> None:
            if len(found) < count:
                found.append((name, output.float().clone()))  # the next module may change it in place

        return hook

    was = model.training
    hooks = [
        module.register_forward_hook(keep(name))
        for name, module in model.named_modules()
        if isinstance(module, nn.Conv2d)
    ]
    try:
        model.eval()
        with torch.no_grad():
            model(images)
    finally:
        for handle in hooks:
            handle.remove()
        model.train(was)
    if not found:
        raise ValueError(f"{type(model).__name__} has no convolution whose output could be shown")
    return found
