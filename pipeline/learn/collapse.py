"""Whether representations have collapsed: the spread and the effective rank of normalised logits.

Computed in evaluation mode on a fixed set of images: a function of the weights that changes no state.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

MIN_SPREAD = 0.1  # of 1/√d, the spread of d independent directions
MIN_RANK = 2.0


def spread(logits: Tensor) -> float:
    """The mean over dimensions of the standard deviation of L2-normalised logits [n, d], times √d.

    About 1 for directions all over the sphere, 0 when all images have the same direction (SimSiam, arXiv 2011.10566,
    4.1).
    """
    unit = torch.nn.functional.normalize(logits.double(), dim=1)
    return float(unit.std(dim=0).mean()) * math.sqrt(logits.shape[1])


def effective_rank(logits: Tensor) -> float:
    """exp of the entropy of the singular values of L2-normalised logits [n, d] (Roy and Vetterli, 2007)."""
    values = torch.linalg.svdvals(torch.nn.functional.normalize(logits.double(), dim=1))
    p = values / values.sum()
    p = p[p > 0]
    return float(torch.exp(-(p * p.log()).sum()))


def monitor(logits: Tensor, name: str) -> dict[str, float | bool]:
    """What is logged of one arm's logits [n, d]: spread, rank, and whether these mean collapse."""
    deviation, rank = spread(logits), effective_rank(logits)
    return {
        f"{name}_spread": deviation,
        f"{name}_rank": rank,
        f"{name}_collapsed": not (deviation >= MIN_SPREAD and rank >= MIN_RANK),
    }
