"""What a self-supervised method is to the loop: a loss over raw pixels, something after each step, and its arms."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

import torch
from torch import Tensor, nn


class Method(nn.Module, ABC):
    """A module whose state is everything the method trains or keeps."""

    @abstractmethod
    def loss(self, pixels: Tensor, draws: torch.Generator) -> dict[str, Tensor]:
        """Scalars of one step from uint8 [n, h, w, 3]; "loss" is minimised, every entry is logged.

        All randomness of the augmentation comes from `draws`, a CPU generator seeded by (seed, epoch, step).
        """

    @abstractmethod
    def after_step(self) -> None:
        """What follows an optimizer step (a teacher's moving average, say)."""

    @abstractmethod
    def arms(self) -> Mapping[str, nn.Module]:
        """The backbones that fine-tuning takes over, by arm name."""

    @abstractmethod
    def parameters_of(self, arm: str) -> list[nn.Parameter]:
        """What the optimizer of an arm updates."""
