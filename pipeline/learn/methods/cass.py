"""CASS: a CNN and a Transformer see the same augmented image and learn to agree (paper 2, Eq. 1, Algorithm 1).

Cost: 403.6 GFLOP an image for ResNet-50 and ViT-B/16 at 384 pixels; ISIC-2019, 100 epochs: 29 h 58 min on an
RTX8000 in float32 (Table 2).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from pipeline.learn.augment import augment
from pipeline.learn.method import Method
from pipeline.runs.spec import Augment, PretrainSpec

OPTIONS = ("head_dim",)


def agreement_loss(r: Tensor, t: Tensor, eps: float = 1e-12) -> Tensor:
    """2 − 2·cos of the logits of both arms [n, d], mean over the batch, in float32 (Eq. 1; fidelity 3a, 5)."""
    r = nn.functional.normalize(r.float(), dim=-1, eps=eps)  # [n, d]
    t = nn.functional.normalize(t.float(), dim=-1, eps=eps)  # [n, d]
    return (2 - 2 * (r * t).sum(dim=-1)).mean()


class Cass(Method):
    """Two arms of any architecture whose logits for the same image are pulled together."""

    def __init__(self, arms: Mapping[str, nn.Module], augmentation: Augment) -> None:
        super().__init__()
        self.networks = nn.ModuleDict(arms)
        self.augmentation = augmentation

    def inputs(self, pixels: Tensor, draws: torch.Generator, progress: float) -> tuple[Tensor, ...]:
        return (augment(pixels, self.augmentation, draws),)  # [n, 3, h, w], one set for both arms

    def loss(self, *inputs: Tensor) -> dict[str, Tensor]:
        images, *others = inputs
        r, t = (network(images) for network in self.networks.values())
        with torch.autocast(images.device.type, enabled=False):
            return self.scalars(r, t, *others)

    def scalars(self, r: Tensor, t: Tensor) -> dict[str, Tensor]:
        """The loss of both arms' logits [n, d], and what else is logged; outside of autocast."""
        return {"loss": agreement_loss(r, t)}

    def after_step(self, progress: float) -> None:
        pass

    def arms(self) -> Mapping[str, nn.Module]:
        return dict(self.networks.items())

    def monitored(self) -> Mapping[str, nn.Module]:
        return self.arms()

    def parameters_of(self, arm: str) -> list[nn.Parameter]:
        return list(self.networks[arm].parameters())


def build(spec: PretrainSpec, arms: Mapping[str, nn.Module]) -> Method:
    """The method of a spec; `ValueError` when it does not name two arms."""
    check_arms(spec, arms)
    return Cass(arms, spec.augment)


def check_arms(spec: PretrainSpec, arms: Mapping[str, nn.Module]) -> None:
    """`ValueError` unless there are two arms."""
    if len(arms) != 2:
        raise ValueError(
            f"{spec.method.name} trains two arms against each other; the spec names {len(arms)}: {', '.join(arms)}"
        )


def outputs(spec: PretrainSpec) -> int:
    """The width of both heads; 1000 keeps ImageNet's (fidelity 3a, 6)."""
    return int(spec.method.options.get("head_dim", 1000))
