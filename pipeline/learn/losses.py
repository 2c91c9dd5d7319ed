"""Losses of fine-tuning and the class weights in them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def focal_loss(logits: Tensor, targets: Tensor, weights: Tensor, *, alpha: float, gamma: float) -> Tensor:
    """Sigmoid focal loss, mean over images and classes (Lin et al., 2017; paper E.3.2; fidelity 3b, 25).

    logits [n, classes], targets [n, classes] of 0 and 1, weights [classes]; computed in float32.
    """
    logits, targets = logits.float(), targets.float()
    log_p = torch.nn.functional.logsigmoid(torch.where(targets > 0, logits, -logits))  # of the true class
    loss = -alpha * (1 - log_p.exp()) ** gamma * log_p
    return (loss * weights).mean()


def class_weights(counts: Sequence[int], kind: str) -> Tensor:
    """Weights [classes] from the number of training images of each class.

    `minmax`: counts scaled to [0.2, 1], so the most common class weighs most: the paper's text and its notebook say so
    (E.3.2; fidelity 3b, 26), although focal loss usually gets the opposite. `inverse`: proportional to 1 / count, mean
    1. `none`: ones.
    """
    n = torch.tensor(counts, dtype=torch.float32)
    if kind == "none" or n.max() == n.min():
        return torch.ones_like(n)
    if kind == "minmax":
        return 0.2 + 0.8 * (n - n.min()) / (n.max() - n.min())
    inverse = 1 / n.clamp(min=1)
    return inverse / inverse.mean()
