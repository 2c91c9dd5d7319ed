"""Start weights that come with a name: a timm tag's, those of a hub's repository, or a file of the user's own.

What they are enters a run's id; where they lie does not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

UNKNOWN = "unknown"
"""The licence where nothing tells it."""


@dataclass(frozen=True, kw_only=True)
class StartWeights:
    """Weights of one network, and how they want its images."""

    name: str
    """A timm tag, `hf-hub:OWNER/NAME`, or the name that the user gave to a file."""
    sha256: str
    """Of the safetensors file."""
    licence: str
    mean: tuple[float, ...]
    """What is subtracted from the channels of an image in [0, 1]."""
    std: tuple[float, ...]
    """What they are then divided by."""
    input_size: int | None = None
    """Pixels on a side of the images that they were trained on, where that is known; runs use their own size."""
    arguments: Mapping[str, float | int | str | bool] = field(default_factory=dict, hash=False)
    """What timm's function of the network takes in addition, such as `init_values`."""

    def __post_init__(self) -> None:
        check_normalisation(self.name, self.mean, self.std)

    @property
    def normalisation(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation."""
        return self.mean, self.std


def check_normalisation(name: str, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
    """`ValueError` where images cannot be normalised so."""
    if len(mean) != 3 or len(std) != 3 or not all(value > 0 for value in std):
        raise ValueError(f"{name}: mean {mean} and std {std} are not three values each, those of std above zero")


def check_given(what: str, weights: str, given: StartWeights | None) -> None:
    """`ValueError` where the word `given` and the weights are not together."""
    if (weights == "given") != (given is not None):
        raise ValueError(f"{what}.weights is {weights!r} and its `given` is {given}; 'given' goes with start weights")
