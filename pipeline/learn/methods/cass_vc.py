"""CASS with a guard: the paper's agreement, and variance and covariance terms that keep images apart.

The terms are VICReg's (arXiv 2105.04906), of each arm's logits on the sphere, where the paper's loss lives: there
2 − 2·cos is VICReg's invariance term. One answer for all images costs the most; the least is what the collapse monitor
wants, a spread of 1 and every direction in use. docs/decisions/0019 has the study. Cost: that of CASS.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields

import torch
from torch import Tensor, nn

from pipeline.learn.method import Method, read_options
from pipeline.learn.methods.cass import Cass, agreement_loss, check_arms
from pipeline.runs.spec import PretrainSpec
from pipeline.runs.values import positive


@dataclass(frozen=True, kw_only=True)
class Options:
    """What a spec says about the method; `pipeline/study/recipes.py` has the numbers."""

    head_dim: int
    """The width of both heads."""
    variance: float
    """The weight of the variance term; the agreement's is 1."""
    covariance: float
    """The weight of the covariance term."""

    def __post_init__(self) -> None:
        if self.head_dim < 2:
            raise ValueError(f"head_dim is {self.head_dim}; two directions differ in two dimensions or more")
        positive(variance=self.variance, covariance=self.covariance)


OPTIONS = tuple(item.name for item in fields(Options))


def on_sphere(logits: Tensor, eps: float = 1e-12) -> Tensor:
    """Logits [n, d] as vectors of length √d in float32; of independent directions each dimension's variance is 1."""
    return nn.functional.normalize(logits.float(), dim=-1, eps=eps) * math.sqrt(logits.shape[1])


def variance_term(z: Tensor, eps: float = 1e-4) -> Tensor:
    """The mean over the dimensions of z [n, d] of what their standard deviations lack to 1 (VICReg, Eq. 1 and 2)."""
    return torch.relu(1 - (z.var(dim=0) + eps).sqrt()).mean()


def covariance_term(z: Tensor) -> Tensor:
    """The sum of the squared covariances of different dimensions of z [n, d], over d (VICReg, Eq. 3 and 4)."""
    n, d = z.shape
    centred = z - z.mean(dim=0)
    squares = (centred.T @ centred / (n - 1)).square()  # [d, d]
    return (squares.sum() - squares.diagonal().sum()) / d


class CassVc(Cass):
    """CASS's arms, pulled together for the same image and kept apart for different ones."""

    def __init__(self, arms: Mapping[str, nn.Module], spec: PretrainSpec) -> None:
        super().__init__(arms, spec.augment)
        self.options = read_options(spec, Options)

    def scalars(self, r: Tensor, t: Tensor) -> dict[str, Tensor]:
        agreement = agreement_loss(r, t)
        spheres = on_sphere(r), on_sphere(t)
        variance = sum((variance_term(z) for z in spheres), torch.zeros_like(agreement))
        covariance = sum((covariance_term(z) for z in spheres), torch.zeros_like(agreement))
        loss = agreement + self.options.variance * variance + self.options.covariance * covariance
        return {"loss": loss, "agreement": agreement, "variance": variance, "covariance": covariance}


def build(spec: PretrainSpec, arms: Mapping[str, nn.Module]) -> Method:
    """The method of a spec; `ValueError` when it does not name two arms, lacks an option or has batches of one."""
    check_arms(spec, arms)
    if spec.batch_size < 2:
        raise ValueError("cass_vc compares the images of a batch; give it batches of 2 or more (16 were studied)")
    return CassVc(arms, spec)


def outputs(spec: PretrainSpec) -> int:
    """The width of both heads."""
    return int(spec.method.options["head_dim"])
