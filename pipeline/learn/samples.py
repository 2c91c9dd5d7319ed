"""Which pictures make which batch: the order of an epoch is a function of (seed, epoch), not a state."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from pipeline.seeds import derive


class Samples:
    """Rows of a pixel map, dealt out in batches."""

    def __init__(self, pixels: np.ndarray, rows: np.ndarray, device: torch.device) -> None:
        self.pixels = pixels  # uint8 [all, h, w, 3]
        self.rows = rows  # int64 [n]
        self.device = device

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, positions: np.ndarray) -> Tensor:
        """The pictures at positions [k] of the rows, on the device: uint8 [k, h, w, 3]."""
        chosen = torch.from_numpy(self.pixels[self.rows[positions]])
        return chosen.to(self.device)

    def permutation(self, seed: int, epoch: int) -> np.ndarray:
        """The order of an epoch: int64 [n]."""
        return np.random.default_rng(derive("order", seed, epoch)).permutation(len(self.rows))


def draws(*parts: int | str) -> torch.Generator:
    """A CPU generator that is a function of its parts, e.g. `draws("augment", seed, epoch, step)`."""
    return torch.Generator().manual_seed(derive(*parts))
