"""Stochastic weight averaging (Izmailov et al., 2018; paper E.2.3): a running mean of the weights at epoch ends."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, update_bn

from pipeline.runs.spec import Average


class Averages:
    """The mean of a module's parameters over the last epochs of a run of `epochs`.

    Shorter runs on its way (`milestones`, in epochs) use it one after the other: no two average at the same epoch, and
    each starts a mean of its own.
    """

    def __init__(self, spec: Average | None, epochs: int, milestones: Sequence[int] = ()) -> None:
        self.windows = [] if spec is None else [spec.window(count) for count in (*milestones, epochs)]
        self.mean: AveragedModel | None = None

    def end_epoch(self, module: nn.Module, epoch: int) -> None:
        window = next((window for window in self.windows if epoch in window), None)
        if window is None:
            self.mean = None
            return
        if self.mean is None or epoch == window.start:
            self.mean = AveragedModel(module)
        self.mean.update_parameters(module)

    def state(self) -> dict[str, Tensor]:
        return {} if self.mean is None else self.mean.state_dict()

    def restore(self, module: nn.Module, state: dict[str, Tensor]) -> None:
        if state:
            self.mean = AveragedModel(module)
            self.mean.load_state_dict(state)

    def module(self) -> nn.Module | None:
        """The averaged module, or None if nothing is averaged."""
        return None if self.mean is None else self.mean.module


def refresh_batch_norm(network: nn.Module, batches: Callable[[], Iterable[Tensor]], seed: int) -> None:
    """Estimate the batch-norm statistics of averaged weights from augmented batches [n, 3, h, w].

    The main random generator is restored afterwards, since dropout draws from it.
    """
    devices = [p.device for p in network.parameters() if p.is_cuda][:1]
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        update_bn(batches(), network)
