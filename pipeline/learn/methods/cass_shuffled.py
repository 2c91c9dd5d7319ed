"""A control of CASS: the same arms, images and loss, but each image in one arm is pulled to another image in the other.

Whatever the arms gain here is not owed to agreement on the same image. Cost: that of CASS.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from pipeline.learn.hardware import to_device
from pipeline.learn.method import Method
from pipeline.learn.methods.cass import OPTIONS, Cass, agreement_loss, check_arms, outputs
from pipeline.runs.spec import PretrainSpec

__all__ = ["OPTIONS", "build", "outputs"]


def derangement(n: int, draws: torch.Generator) -> Tensor:
    """A random order int64 [n] of 0 … n − 1 that leaves none where it was: one cycle through all; n is 2 or more."""
    cycle = torch.randperm(n, generator=draws)
    out = torch.empty_like(cycle)
    out[cycle] = cycle.roll(-1)
    return out


class CassShuffled(Cass):
    """CASS whose two arms never see the same image together. The order of a step is drawn after its augmentation, from
    the same generator, so both arms' images are CASS's and a resume draws it again."""

    def inputs(self, pixels: Tensor, draws: torch.Generator, progress: float) -> tuple[Tensor, ...]:
        images = super().inputs(pixels, draws, progress)
        return (*images, to_device(derangement(len(pixels), draws), pixels.device))

    def scalars(self, r: Tensor, t: Tensor, order: Tensor) -> dict[str, Tensor]:  # type: ignore[override]
        return {"loss": agreement_loss(r, t[order])}


def build(spec: PretrainSpec, arms: Mapping[str, nn.Module]) -> Method:
    """The method of a spec; `ValueError` when it does not name two arms or has batches of one."""
    check_arms(spec, arms)
    if spec.batch_size < 2:
        raise ValueError("cass_shuffled needs another image in the batch; give it batches of 2 or more")
    return CassShuffled(arms, spec.augment)
