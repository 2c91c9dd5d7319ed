"""Optimizers of a spec, fused where the device has them: one pass over the parameters a step."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from pipeline.spec import Optim


def build(spec: Optim, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """The optimizer; its learning rate is set anew by the loop at every step."""
    if spec.name == "adam":
        return torch.optim.Adam(parameters, lr=spec.lr, weight_decay=spec.weight_decay, fused=True)
    return torch.optim.SGD(parameters, lr=spec.lr, momentum=spec.momentum, weight_decay=spec.weight_decay, fused=True)
