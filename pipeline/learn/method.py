"""The contract of a self-supervised method: its inputs and loss, what follows each step, and its arms."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from pipeline.runs.spec import PretrainSpec


class Method(nn.Module, ABC):
    """A module whose state holds everything that the method trains or keeps."""

    @abstractmethod
    def inputs(self, pixels: Tensor, draws: torch.Generator, progress: float) -> tuple[Tensor, ...]:
        """What a step's loss is computed from, on the device: augmented views of images uint8 [n, h, w, 3].

        All randomness of the augmentation comes from `draws`, a CPU generator seeded by (seed, epoch, step).
        `progress` is the part of the run that is done, in [0, 1); every schedule is a function of it. What the host
        decides in a step is decided here, such as which parameters are trained.
        """

    @abstractmethod
    def loss(self, *inputs: Tensor) -> dict[str, Tensor]:
        """Scalars of one step from its inputs; "loss" is minimised, every entry is logged.

        The same operations in every step with inputs of these shapes, so that a GPU can replay them (learn/graphs):
        nothing waits for the device, comes from the host or depends on the step.
        """

    @abstractmethod
    def after_step(self, progress: float) -> None:
        """What follows the optimizer's step of the same progress, such as a teacher's moving average."""

    @abstractmethod
    def arms(self) -> Mapping[str, nn.Module]:
        """The backbones that fine-tuning takes over, by arm name."""

    @abstractmethod
    def monitored(self) -> Mapping[str, nn.Module]:
        """The networks whose outputs for images without augmentation the collapse monitor reads, by arm name."""

    @abstractmethod
    def parameters_of(self, arm: str) -> list[nn.Parameter]:
        """What the optimizer of an arm updates."""


Options = TypeVar("Options")


def read_options(spec: PretrainSpec, kind: type[Options]) -> Options:
    """The options of a spec as the method's frozen value; `ValueError` for an option that is missing or of the wrong
    type.
    """
    given = spec.method.options
    types = {"int": (int,), "float": (int, float), "bool": (bool,)}
    for item in fields(kind):  # type: ignore[arg-type]
        if item.name not in given:
            raise ValueError(f"{spec.method.name} lacks the option {item.name!r}; pipeline/study/recipes.py gives all")
        value: Any = given[item.name]
        if type(value) not in types[str(item.type)]:
            raise ValueError(f"the option {item.name!r} of {spec.method.name} is {value!r}; its type is {item.type}")
    return kind(**given)


def only_arm(spec: PretrainSpec, arms: Mapping[str, nn.Module]) -> tuple[str, nn.Module]:
    """The arm of a method that trains one backbone a run; `ValueError` when the spec names more."""
    if len(arms) != 1:
        raise ValueError(f"{spec.method.name} trains one backbone a run; the spec names {len(arms)}: {', '.join(arms)}")
    return next(iter(arms.items()))
