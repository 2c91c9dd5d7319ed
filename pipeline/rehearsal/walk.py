"""A backward pass in Python, since autograd's engine asks for a GPU's driver before it starts.

The order is the engine's: the operation that was recorded last comes first, and gradients are added up as soon as
there are any. What an operation saved is freed once it has been passed, as without `retain_graph`.
"""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from pipeline.rehearsal.seen import Seen


class _Saved:
    """A tensor that an operation saved for its backward pass."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor: Tensor | None = tensor
        self.version = tensor._version


class Backward:
    """`torch.autograd.backward` for one loss; `recording` must be active in the forward pass."""

    def __init__(self, seen: Seen) -> None:
        self.seen = seen
        self._unpacked: list[_Saved] = []

    @contextmanager
    def recording(self) -> Iterator[None]:
        with torch.autograd.graph.saved_tensors_hooks(_Saved, self._unpack):
            yield

    def _unpack(self, saved: _Saved) -> Tensor:
        if saved.tensor is None:
            raise RuntimeError("a second backward pass through what the first has freed")
        if saved.tensor._version != saved.version:
            raise RuntimeError("a tensor that is needed for gradients was changed in place")
        self._unpacked.append(saved)
        return saved.tensor

    def __call__(self, loss: Tensor) -> None:
        with self.seen.doing("backward"), torch.no_grad():
            self._walk(loss)

    def _walk(self, loss: Tensor) -> None:
        waiting = dependencies(loss.grad_fn)
        gradients: dict[Any, dict[int, Tensor]] = defaultdict(dict)
        gradients[loss.grad_fn][loss.output_nr] = torch.ones_like(loss)
        ready = [_Entry(loss.grad_fn)]
        while ready:
            node = heapq.heappop(ready).node
            outputs = self._apply(node, gradients.pop(node, {}))
            for (child, number), gradient in zip(node.next_functions, outputs, strict=True):
                if child is None:
                    continue
                if gradient is not None:
                    before = gradients[child].get(number)
                    gradient = self._fitting(child, number, gradient)
                    gradients[child][number] = gradient if before is None else before + gradient
                waiting[child] -= 1
                if not waiting[child]:
                    heapq.heappush(ready, _Entry(child))
            del outputs
            gradient = before = None

    def _apply(self, node: Any, given: dict[int, Tensor]) -> tuple[Tensor | None, ...]:
        if hasattr(node, "variable"):  # a parameter: the gradient is kept
            if given:
                variable, gradient = node.variable, given.pop(0)
                if variable.grad is None:
                    variable.grad = gradient
                else:
                    variable.grad.add_(gradient)
                self.seen.memory.label([variable.grad], "gradients")
            return ()
        if not given:
            return (None,) * len(node.next_functions)
        out = node(*[given.pop(number, None) for number in range(len(node._input_metadata))])
        for saved in self._unpacked:
            saved.tensor = None
        self._unpacked.clear()
        return out if isinstance(out, tuple) else (out,)

    def _fitting(self, child: Any, number: int, gradient: Tensor) -> Tensor:
        """The gradient as the engine hands it on, summed and cast to what is wanted; notes what it would refuse."""
        wanted = child.variable if hasattr(child, "variable") else child._input_metadata[number]
        shape = tuple(wanted.shape)
        if gradient.device != wanted.device:
            self.seen.gradients.append(f"{child.name()}: a gradient on {gradient.device}, not {wanted.device}")
        if tuple(gradient.shape) != shape:
            gradient = gradient.sum_to_size(shape)
        if gradient.dtype != wanted.dtype:
            gradient = gradient.to(wanted.dtype)
        return gradient


class _Entry:
    """A node of the graph in the engine's order: parameters first, then what was recorded last."""

    def __init__(self, node: Any) -> None:
        self.node = node
        self.rank = (0, 0) if hasattr(node, "variable") else (1, -node._sequence_nr())

    def __lt__(self, other: _Entry) -> bool:
        return self.rank < other.rank


def dependencies(start: Any) -> Counter[Any]:
    """How many operations hand a gradient to each node of a graph."""
    found: Counter[Any] = Counter()
    seen, todo = {start}, [start]
    while todo:
        for child, _ in todo.pop().next_functions:
            if child is not None:
                found[child] += 1
                if child not in seen:
                    seen.add(child)
                    todo.append(child)
    return found
