"""A control of CASS: its forward passes and no training. Only the batch-norm statistics become those of the images.

This is adaptive batch normalisation (AdaBN, arXiv 1603.04779) on the pretraining images. Weights keep every bit; an arm
without batch norm, as a ViT, stays what it was. Where weights are averaged, the statistics are estimated as CASS's are.
Cost: a forward pass of CASS.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from pipeline.learn.method import Method
from pipeline.learn.methods.cass import OPTIONS, Cass, check_arms, outputs
from pipeline.runs.spec import PretrainSpec

__all__ = ["OPTIONS", "build", "outputs"]


class BatchNormOnly(Cass):
    """CASS whose loss is always zero, with gradients of zero; its agreement is logged."""

    def loss(self, *inputs: Tensor) -> dict[str, Tensor]:
        with torch.no_grad():
            agreement = super().loss(*inputs)["loss"]
        with torch.autocast(inputs[0].device.type, enabled=False):
            sums = [parameter.sum() for name in self.networks for parameter in self.parameters_of(name)]
            return {"loss": 0 * torch.stack(sums).sum(), "agreement": agreement}


def build(spec: PretrainSpec, arms: Mapping[str, nn.Module]) -> Method:
    """The method of a spec; `ValueError` when it does not name two arms or its optimizer moves weights by itself."""
    check_arms(spec, arms)
    if any(arm.optim.weight_decay or arm.optim.last_weight_decay for arm in spec.arms):
        raise ValueError("bn_only moves no weight; give its arms optimizers without weight decay")
    return BatchNormOnly(arms, spec.augment)
