"""Device memory by what it is for: the storages that are alive, and all of them at the moment of the peak."""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

BLOCK = 512  # bytes: torch's allocator rounds every tensor up to whole blocks
REST = "activations"  # what nothing else was said of: activations, images, temporaries


class Memory:
    """The bytes of the tensors that are alive, by kind, as torch's allocator would count them.

    Workspaces of libraries and what the allocator keeps for itself are not in it.
    """

    def __init__(self) -> None:
        self.live: Counter[str] = Counter()
        self.peak: Mapping[str, int] = {}
        """What was alive, by kind, when most was."""
        self._storages: dict[int, tuple[str, int]] = {}

    @property
    def live_bytes(self) -> int:
        return sum(self.live.values())

    @property
    def peak_bytes(self) -> int:
        return sum(self.peak.values())

    def note(self, tensor: Tensor) -> None:
        """Count the tensor's storage, once, until it is freed."""
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._storages:
            return
        size = -(-storage.nbytes() // BLOCK) * BLOCK
        self._storages[key] = (REST, size)
        self.live[REST] += size
        weakref.finalize(storage, self._forget, key)
        if self.live_bytes > self.peak_bytes:
            self.peak = dict(self.live)

    def label(self, tensors: Iterable[Tensor | None], kind: str) -> None:
        """Say what these tensors are for."""
        for tensor in tensors:
            key = None if tensor is None else tensor.untyped_storage()._cdata
            if key is not None and key in self._storages:
                was, size = self._storages[key]
                self.live[was] -= size
                self.live[kind] += size
                self._storages[key] = (kind, size)

    def reset_peak(self) -> None:
        """Look for the peak from now on, as `torch.cuda.reset_peak_memory_stats`."""
        self.peak = dict(self.live)

    def _forget(self, key: int) -> None:
        kind, size = self._storages.pop(key)
        self.live[kind] -= size


class Pinned:
    """Page-locked host memory, in the powers of two that torch's allocator for it takes."""

    def __init__(self) -> None:
        self.live = self.peak = 0
        self._storages: dict[int, int] = {}

    def note(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if size and key not in self._storages:
            self._storages[key] = rounded = 1 << (size - 1).bit_length()
            self.live += rounded
            self.peak = max(self.peak, self.live)
            weakref.finalize(storage, self._forget, key)
        return tensor

    def __contains__(self, tensor: Tensor) -> bool:
        return not tensor.numel() or tensor.untyped_storage()._cdata in self._storages

    def _forget(self, key: int) -> None:
        self.live -= self._storages.pop(key)


def tensors_of(value: object) -> list[Tensor]:
    """Every tensor in nested containers."""
    from torch.utils._pytree import tree_leaves

    return [item for item in tree_leaves(value) if isinstance(item, torch.Tensor)]
