"""Stochastic weight averaging (Izmailov et al., 2018; paper E.2.3): a running mean of the weights at epoch ends."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

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
        update(self.mean, module)

    def state(self) -> dict[str, Tensor]:
        return {} if self.mean is None else self.mean.state_dict()

    def restore(self, module: nn.Module, state: dict[str, Tensor]) -> None:
        if state:
            self.mean = AveragedModel(module)
            self.mean.load_state_dict(state)

    def module(self) -> nn.Module | None:
        """The averaged module, or None if nothing is averaged."""
        return None if self.mean is None else self.mean.module


@torch.no_grad()
def update(mean: AveragedModel, module: nn.Module) -> None:
    """Take the module's weights into the mean, and its buffers as they are.

    The bits are those of `AveragedModel.update_parameters` on a CPU. On a GPU that one asks the device for the number
    of its models once for every parameter; here the number stays on the host, and a few operations do for all.
    """
    taken = int(mean.n_averaged)  # a tensor on the host
    averaged: list[Tensor] = list(mean.module.parameters())
    current: list[Tensor] = list(module.parameters())
    if taken:
        steps = torch._foreach_sub(current, averaged)
        torch._foreach_div_(steps, taken + 1)
        torch._foreach_add_(averaged, steps)
    else:
        torch._foreach_copy_(averaged, current)
    copy_buffers(mean.module, module)
    mean.n_averaged += 1


@torch.no_grad()
def copy_buffers(target: nn.Module, source: nn.Module) -> None:
    """Give a module the buffers of another of the same kind: one operation for those of each type."""
    pairs = list(zip(target.buffers(), source.buffers(), strict=True))
    for dtype in {ours.dtype for ours, _ in pairs}:
        same = [(ours, theirs) for ours, theirs in pairs if ours.dtype == dtype]
        torch._foreach_copy_([ours for ours, _ in same], [theirs for _, theirs in same])


@torch.no_grad()
def refresh_batch_norm(network: nn.Module, batches: Callable[[], Iterable[Tensor]], seed: int) -> None:
    """Estimate the batch-norm statistics of averaged weights from augmented batches [n, 3, h, w]; mode and main random
    generator (dropout draws from it) are as before afterwards.

    The bits are those of torch's `update_bn`, which asks the device in every layer for the number of the batch.
    """
    devices = [p.device for p in network.parameters() if p.is_cuda][:1]
    layers = [module for module in network.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    momenta, training = [layer.momentum for layer in layers], network.training
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        network.train()
        for layer in layers:
            layer.reset_running_stats()
        for number, images in enumerate(batches(), start=1):
            for layer in layers:
                layer.momentum = 1 / number  # the mean over all batches
            network(images)
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum
    network.train(training)
