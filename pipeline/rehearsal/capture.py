"""What a CUDA graph would hold of a step: its operations, their numbers, and the memory from outside that they use."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.utils._pytree import tree_leaves

from pipeline.rehearsal.memory import tensors_of


class CannotCapture(RuntimeError):
    """Something that a CUDA graph does not repeat."""


@dataclass(frozen=True)
class Operation:
    """One operation on the device."""

    name: str
    place: str
    values: str
    """Its arguments that are no tensors: a graph keeps them as they were."""
    memory: tuple[str | weakref.ref[Any], ...]
    """Of its tensors: an input, what an earlier operation made (a number), or memory that was there before."""


class Recording:
    """The operations of a forward and backward pass on some inputs."""

    def __init__(self, inputs: Sequence[Tensor] = ()) -> None:
        self.operations: list[Operation] = []
        self.outside: set[weakref.ref[Any]] = set()
        """Memory that was there before and is no input; a graph's replays use the same addresses."""
        self._known: dict[int, str | weakref.ref[Any]] = {
            tensor.untyped_storage()._cdata: f"input {number}" for number, tensor in enumerate(inputs)
        }

    def note(self, name: str, place: str, arguments: Any, made: Any) -> None:
        """An operation with its arguments and what it made."""
        given = tensors_of(arguments)
        for tensor in given:
            storage = tensor.untyped_storage()
            if storage._cdata not in self._known:
                self._known[storage._cdata] = outside = weakref.ref(storage)
                self.outside.add(outside)
        memory = tuple(self._known[tensor.untyped_storage()._cdata] for tensor in given)
        values = [repr(item) for item in tree_leaves(arguments) if not isinstance(item, Tensor)]
        self.operations.append(Operation(name, place, ", ".join(values), memory))
        keys = {tensor.untyped_storage()._cdata for tensor in given}
        for number, tensor in enumerate(tensors_of(made)):
            key = tensor.untyped_storage()._cdata
            if key not in keys:  # memory of its own
                self._known[key] = f"{len(self.operations)}.{number}"

    def check_alive(self) -> None:
        """`CannotCapture` where memory that the operations used is no longer there."""
        for operation in self.operations:
            if any(isinstance(used, weakref.ref) and used() is None for used in operation.memory):
                raise CannotCapture(
                    f"{operation.name} at {operation.place} uses memory that was freed since the capture"
                )


def check_same(first: Recording, second: Recording) -> None:
    """`CannotCapture` that names the first operation in which two passes of the same kind differ."""
    for one, other in zip(first.operations, second.operations, strict=False):
        what = f"{one.name} at {one.place}"
        if (one.name, one.place) != (other.name, other.place):
            raise CannotCapture(f"{what} is {other.name} at {other.place} in another step")
        if one.values != other.values:
            raise CannotCapture(f"{what} has other numbers in another step: {one.values}, {other.values}")
        if one.memory != other.memory:
            raise CannotCapture(f"{what} uses other memory in another step")
    if len(first.operations) != len(second.operations):
        raise CannotCapture(f"a step has {len(first.operations)} operations, another {len(second.operations)}")
