"""What the training loop trains, and how far it is: the contract between the loop and the two kinds of run."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.runs.spec import Optim


class Program(ABC):
    """What the loop trains."""

    module: nn.Module
    optimizers: Sequence[tuple[torch.optim.Optimizer, Optim]]
    epochs: int
    steps_per_epoch: int
    keep_gradients: bool

    @abstractmethod
    def inputs(self, epoch: int, step: int) -> tuple[tuple[Tensor, ...], int]:
        """What a step's loss is computed from, on the device, and the number of images it used."""

    @abstractmethod
    def loss(self, *inputs: Tensor) -> dict[str, Tensor]:
        """The scalars of a step from its inputs ("loss" is minimised), as `method.Method.loss`."""

    @abstractmethod
    def after_step(self, epoch: int, step: int) -> None:
        """What follows the optimizers' step."""

    @abstractmethod
    def end_epoch(self, epoch: int) -> tuple[dict[str, Any], bool]:
        """What is logged of an epoch that ended, and whether the run ends with it."""

    def observe(self, epochs: int) -> dict[str, Any]:
        """What is logged of the weights after so many epochs, 0 included; no bit of the training depends on it, and its
        time is not the run's."""
        return {}

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """State beyond modules and optimizers: averages, the best epoch so far."""

    @abstractmethod
    def restore(self, state: dict[str, Any]) -> None:
        """Take over what `state` returned."""


@dataclass
class Counters:
    """How far a run is: the next step to take, and sums over the steps of this epoch. Checkpoints hold these names."""

    epoch: int = 0
    step: int = 0
    global_step: int = 0
    images: int = 0
    seconds: float = 0.0
    epoch_images: int = 0
    epoch_seconds: float = 0.0
    """Of training steps only, without validation."""
    finished: bool = False
    sums: dict[str, float] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)
    """What was logged of each epoch."""
    start: dict[str, Any] = field(default_factory=dict)
    """What was observed before the first step; empty in checkpoints of earlier code."""

    def add(self, name: str, value: float) -> None:
        """Add to the sum whose mean over the epoch's steps is logged."""
        self.sums[name] = self.sums.get(name, 0.0) + value

    def next_epoch(self) -> None:
        self.epoch, self.step, self.sums = self.epoch + 1, 0, {}
        self.epoch_images, self.epoch_seconds = 0, 0.0
