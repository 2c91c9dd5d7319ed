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
        self._order: tuple[tuple[int, int], np.ndarray] = ((-1, -1), np.empty(0))  # of the epoch at work

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, positions: np.ndarray) -> Tensor:
        """The pictures at positions [k] of the rows, on the device: uint8 [k, h, w, 3]."""
        chosen = torch.from_numpy(self.pixels[self.rows[positions]])
        return chosen.to(self.device)

    def permutation(self, seed: int, epoch: int) -> np.ndarray:
        """The order of an epoch: int64 [n]."""
        return np.random.default_rng(derive("order", seed, epoch)).permutation(len(self.rows))

    def batch(self, seed: int, epoch: int, step: int, size: int) -> np.ndarray:
        """The positions of a step's pictures in the epoch's order: int64 [size], fewer at the end."""
        if self._order[0] != (seed, epoch):
            self._order = ((seed, epoch), self.permutation(seed, epoch))
        return self._order[1][step * size : (step + 1) * size]


def draws(*parts: int | str) -> torch.Generator:
    """A CPU generator that is a function of its parts, e.g. `draws("augment", seed, epoch, step)`."""
    return torch.Generator().manual_seed(derive(*parts))
