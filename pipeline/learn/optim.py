"""The optimizers of a spec, in torch's fused form: one pass over the parameters a step."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from pipeline.runs.spec import Optim


def build(spec: Optim, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """The optimizer; the loop sets its learning rate at every step.

    AdamW decays matrices and kernels only, not biases and the weights of norms (DINO's own recipe).
    """
    if spec.name == "adam":
        return torch.optim.Adam(parameters, lr=spec.lr, weight_decay=spec.weight_decay, fused=True)
    if spec.name == "adamw":
        every = list(parameters)
        groups = [
            {"params": [p for p in every if p.ndim > 1], "decayed": True},
            {"params": [p for p in every if p.ndim <= 1], "decayed": False, "weight_decay": 0.0},
        ]
        return torch.optim.AdamW(groups, lr=spec.lr, weight_decay=spec.weight_decay, fused=True)
    every = list(parameters)
    sgd = torch.optim.SGD(every, lr=spec.lr, momentum=spec.momentum, weight_decay=spec.weight_decay, fused=True)
    if spec.momentum:  # else, after steps that a scaler skipped, fused SGD reads a buffer that was never written
        for parameter in every:
            sgd.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return sgd


def schedule(optimizer: torch.optim.Optimizer, spec: Optim, *, step: int, epoch: int, progress: float) -> float:
    """Set the learning rate and weight decay of a step; returns the learning rate."""
    lr = spec.lr_at(step=step, epoch=epoch, progress=progress)
    for group in optimizer.param_groups:
        group["lr"] = lr
        if group.get("decayed"):
            group["weight_decay"] = spec.weight_decay_at(progress)
    return lr


def clip(optimizer: torch.optim.Optimizer, max_norm: float) -> None:
    """Scale down every parameter's gradient to a norm of `max_norm` at most, each by its own (DINO's own recipe).

    The bits are those of `torch.nn.utils.clip_grad_norm_` for one parameter after another, in fewer operations.
    """
    gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    if not gradients:
        return
    norms = torch.stack(torch._foreach_norm(gradients))  # [parameters]
    factors = (max_norm / (norms + 1e-6)).clamp(max=1.0)
    torch._foreach_mul_(gradients, list(factors.unbind()))
