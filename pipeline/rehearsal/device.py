"""A CUDA device that is only pretended: its tensors are torch's fake ones, without memory, driver or GPU.

Every operation that reaches it is noted (`seen`). Tensors on the host stay real, so the draws of an augmentation and
all decisions of a program are those of a real run. What is copied back to the host is made up.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from pipeline.rehearsal.memory import tensors_of
from pipeline.rehearsal.seen import Seen, Upload, place

FREE = (
    "device",
    "_unsafe_view",
    "empty",
    "empty_strided",
    "empty_like",
    "new_empty",
    "new_empty_strided",
    "resize_",
    "set_",
    "detach_",
)
WAITING = ("nonzero", "masked_select", "_unique2", "unique_dim", "unique_consecutive", "equal")
"""Operations whose result's shape or value the host must know before it continues."""


class OneMode(FakeTensorMode):  # type: ignore[no-untyped-call]
    """The mode of all fake tensors: a deep copy of a tensor belongs to the same one, not to a copy of it."""

    def __deepcopy__(self, memo: Any) -> OneMode:
        return self


class MixedDevices(RuntimeError):
    """An operation met tensors on the device and on the host."""


class Device(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Sends every operation on `cuda` tensors to fake ones, and notes it."""

    def __init__(self, seen: Seen) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seen = seen
        self.fake = OneMode(allow_non_fake_inputs=True)
        self._made_up = torch.Generator().manual_seed(0)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        tensors = tensors_of((args, kwargs))
        device = None if kwargs.get("device") is None else torch.device(kwargs["device"]).type
        on_device = [t for t in tensors if isinstance(t, FakeTensor)]
        if not on_device and device != "cuda":
            return func(*args, **kwargs)
        on_host = [t for t in tensors if t.device.type == "cpu" and t.dim() > 0]
        name = func._schema.name.split("::")[1]
        if name == "_local_scalar_dense":
            self.seen.wait("item")
            return 1.0 if args[0].is_floating_point() else 1
        if name == "_to_copy" and device is not None:
            if not on_device:
                return self._upload(args[0], kwargs)
            if on_device and device == "cpu":
                return self._download(args[0], kwargs)
        if name == "copy_" and args[0].device.type != args[1].device.type:
            return self._copy(args[0], args[1], non_blocking=bool(kwargs.get("non_blocking", args[2:] and args[2])))
        if on_device and on_host:
            self._refuse(name)
        if name in WAITING or (name == "index" and any(t.dtype in (torch.bool, torch.uint8) for t in tensors[1:])):
            self.seen.wait(name)
        return self._run(func, name, args, kwargs)

    def _run(self, func: Any, name: str, args: Any, kwargs: Any) -> Any:
        with self.fake:
            out = func(*args, **kwargs)
        if not (func.is_view or name in FREE):
            self.seen.launch(name)
            for recording in self.seen.recordings:
                recording.note(name, place(), (args, kwargs), out)
        for tensor in tensors_of(out):
            if isinstance(tensor, FakeTensor):
                self.seen.memory.note(tensor)
                if tensor.is_floating_point():
                    self.seen.dtypes.setdefault((self.seen.part, name), set()).add(str(tensor.dtype)[6:])
        return out

    def _refuse(self, name: str) -> None:
        self.seen.mixed[self.seen.part, name, place()] += 1
        raise MixedDevices(f"{name} at {place()} has tensors on the device and on the host")

    def _upload(self, tensor: Tensor, kwargs: Any) -> Tensor:
        """A new tensor on the device with the shape of one on the host."""
        self._note_upload(tensor, bool(kwargs.get("non_blocking")))
        with self.fake:
            out = torch.empty_strided(
                tensor.shape, tensor.stride(), dtype=kwargs.get("dtype") or tensor.dtype, device=kwargs["device"]
            )
        self.seen.memory.note(out)
        return out

    def _download(self, tensor: Tensor, kwargs: Any) -> Tensor:
        """A new tensor on the host: normal values, or zeros where whole numbers are wanted.

        torch pins what it makes for a copy that does not block.
        """
        out = self._values(tensor.shape, kwargs.get("dtype") or tensor.dtype)
        if kwargs.get("non_blocking"):
            return self.seen.pinned.note(out)
        self.seen.wait("copy to the host")
        return out

    def _copy(self, target: Tensor, source: Tensor, *, non_blocking: bool) -> Tensor:
        """A copy into a tensor that is there, in one of both directions."""
        if isinstance(target, FakeTensor):
            self._note_upload(source, non_blocking)
        elif not (non_blocking and target in self.seen.pinned):
            self.seen.wait("copy to the host")
        return target

    def _note_upload(self, tensor: Tensor, non_blocking: bool) -> None:
        self.seen.refuse_capture("upload")
        pinned = tensor in self.seen.pinned
        self.seen.uploads[Upload(self.seen.part, place(), pinned, not non_blocking)] += 1
        if not (non_blocking and pinned):
            self.seen.wait("blocking upload" if not non_blocking else "upload from pageable memory")

    def _values(self, shape: Any, dtype: torch.dtype) -> Tensor:
        if dtype.is_floating_point:
            return torch.randn(tuple(shape), generator=self._made_up).to(dtype)
        return torch.zeros(tuple(shape), dtype=dtype)
