"""The forward and backward pass of a step as one CUDA graph: captured once, then replayed by a single call.

A graph repeats what was captured: the same kernels on the same memory. So everything that a step draws or decides stays
outside of it and fills its inputs, and the optimizers stay outside too: their learning rates are numbers of the host,
and torch's fused kernels would take a tensor's in float32 only, which changes bits (docs/decisions/0038).

The first steps of a kind are launched as ever and warm the libraries up. They are steps of the run like all others, so
nothing is saved before them or restored after them, a resumed run captures its own, and no checkpoint knows of graphs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

WARM_UP = 3  # steps before a capture: torch's advice, since the first ones make what libraries keep

Passes = Callable[..., dict[str, Tensor]]
"""From the inputs of a step to its scalars, with gradients left in the parameters."""
Kind = tuple[Any, ...]
"""What a graph holds for: the inputs' shapes and types, and which parameters are trained."""


class Replayed:
    """Passes that are replayed once enough steps of the same kind came one after another.

    Another kind (an epoch's smaller last batch, a layer that is trained from now on) is launched as ever until it has
    come as often; one graph is kept. On a CPU the passes are run again on a graph's inputs, which shows that they need
    nothing else.
    """

    def __init__(self, passes: Passes, module: nn.Module, device: torch.device) -> None:
        self.passes = passes
        self.parameters = list(module.parameters())
        self.stream = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]
        self.graph: Graph | None = None
        self._coming: Kind = ()
        """The kind of the last step that was launched as ever."""
        self._came = 0
        """How many of it came one after another."""

    def __call__(self, *inputs: Tensor) -> dict[str, Tensor]:
        kind = (*((i.shape, i.dtype) for i in inputs), *(p.requires_grad for p in self.parameters))
        if self.graph is not None and self.graph.kind == kind:
            self._came = 0
            return self.graph.replay(inputs)
        self._came = self._came + 1 if kind == self._coming else 1
        self._coming = kind
        if self._came <= WARM_UP:
            return self.launch(inputs)
        self.graph = None  # its memory is free for the next one
        self.graph = Graph(self.passes, kind, inputs, self.parameters, self.stream)
        return self.graph.replay(inputs)

    def launch(self, inputs: tuple[Tensor, ...]) -> dict[str, Tensor]:
        """The passes as ever, on the stream that captures: libraries keep workspaces and handles a stream."""
        if self.stream is None:
            return self.passes(*inputs)
        here = torch.cuda.current_stream()
        self.stream.wait_stream(here)
        with torch.cuda.stream(self.stream):
            scalars = self.passes(*inputs)
        here.wait_stream(self.stream)
        return scalars


class Graph:
    """Captured passes of one kind, with the memory of their inputs, scalars and gradients."""

    def __init__(
        self,
        passes: Passes,
        kind: Kind,
        inputs: tuple[Tensor, ...],
        parameters: list[nn.Parameter],
        stream: torch.cuda.Stream | None,
    ) -> None:
        """Capture; nothing is computed. `ValueError` with the reason where that is impossible."""
        self.passes = passes
        self.kind = kind
        self.inputs = [torch.empty_like(tensor) for tensor in inputs]
        self.parameters = parameters
        self.graph: torch.cuda.CUDAGraph | None = None
        if stream is None:
            return
        graph = torch.cuda.CUDAGraph()
        try:
            # threads that read ahead or write a checkpoint continue meanwhile
            with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
                self.scalars = passes(*self.inputs)
        except torch.cuda.OutOfMemoryError:
            raise
        except RuntimeError as error:
            raise ValueError(
                f"a step cannot be captured as a CUDA graph ({str(error).splitlines()[0]}); set cuda_graphs = false in "
                "the cluster file"
            ) from error
        self.graph = graph
        self.gradients = [parameter.grad for parameter in parameters]

    def replay(self, inputs: tuple[Tensor, ...]) -> dict[str, Tensor]:
        """The passes on these inputs; gradients come in the graph's memory, scalars in memory of their own."""
        for mine, given in zip(self.inputs, inputs, strict=True):
            mine.copy_(given)
        if self.graph is None:
            return self.passes(*self.inputs)
        self.graph.replay()
        for parameter, gradient in zip(self.parameters, self.gradients, strict=True):
            parameter.grad = gradient
        return {name: value.clone() for name, value in self.scalars.items()}
