"""Makes torch believe in a GPU for the time of a `with`: what of its interface asks for a driver is replaced."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

from pipeline.rehearsal.capture import Recording
from pipeline.rehearsal.device import Device
from pipeline.rehearsal.seen import Seen
from pipeline.rehearsal.walk import Backward


@dataclass(frozen=True)
class Gpu:
    """The GPU that is pretended."""

    name: str = "pretended GPU"
    capability: tuple[int, int] = (7, 5)
    attention: str = "efficient"
    """`efficient`: torch's memory-efficient kernel, which keeps no attention matrix (nor does flash attention); `math`:
    the plain one, which keeps it."""


TURING = Gpu()


@contextlib.contextmanager
def pretended(gpu: Gpu = TURING) -> Iterator[Seen]:
    """A GPU that is not there; gives what is seen of it.

    Everything runs in this thread, and no tensor of the device may be used after the end. Gradients come from
    `torch.autograd.backward` (`Tensor.backward` still asks for a driver).
    """
    torch._C._ensureCUDADeviceGuardSet()  # what `FakeTensorMode` does where there is no GPU
    seen = Seen()
    backward = Backward(seen)
    swapped = torch.__future__.get_overwrite_module_params_on_conversion()
    torch.__future__.set_overwrite_module_params_on_conversion(
        True
    )  # `Module.to` cannot change a real tensor to a fake
    try:
        with contextlib.ExitStack() as stack:
            for target, replacements in _replaced(gpu, seen, backward).items():
                stack.enter_context(mock.patch.multiple(target, **replacements))
            stack.enter_context(backward.recording())
            stack.enter_context(Device(seen))
            yield seen
    finally:
        torch.__future__.set_overwrite_module_params_on_conversion(swapped)


def _replaced(gpu: Gpu, seen: Seen, backward: Backward) -> dict[Any, dict[str, Any]]:
    """The replacements of torch's functions, by module and name."""
    memory = seen.memory
    event, stream = _events(seen)
    graph, capture = _graphs(seen)
    attention = _efficient_attention if gpu.attention == "efficient" else _plain_attention
    return {
        torch.cuda: {
            "is_available": lambda: True,
            "is_initialized": lambda: True,
            "_lazy_init": lambda: None,
            "device_count": lambda: 1,
            "current_device": lambda: 0,
            "get_device_name": lambda *_: gpu.name,
            "get_device_capability": lambda *_: gpu.capability,
            "get_arch_list": lambda: [],
            "is_bf16_supported": lambda including_emulation=True: including_emulation or gpu.capability >= (8, 0),
            "manual_seed_all": lambda _: None,
            "get_rng_state": lambda *_: torch.zeros(16, dtype=torch.uint8),
            "set_rng_state": lambda *_: None,
            "synchronize": lambda *_: seen.wait("synchronize"),
            "empty_cache": lambda: None,
            "memory_allocated": lambda *_: memory.live_bytes,
            "memory_reserved": lambda *_: memory.live_bytes,
            "max_memory_allocated": lambda *_: memory.peak_bytes,
            "max_memory_reserved": lambda *_: memory.peak_bytes,
            "reset_peak_memory_stats": lambda *_: memory.reset_peak(),
            "Event": event,
            "Stream": stream,
            "current_stream": lambda *_: stream(),
            "stream": lambda _: contextlib.nullcontext(),
            "CUDAGraph": graph,
            "graph": capture,
        },
        torch.accelerator: {"current_accelerator": lambda *_, **__: None},
        torch.random: {"fork_rng": lambda *_, **__: contextlib.nullcontext()},
        torch.autograd: {"backward": backward},
        torch.nn.functional: {"scaled_dot_product_attention": attention},
        torch.Tensor: {
            "pin_memory": lambda self, *_: seen.pinned.note(self.clone()),
            "record_stream": lambda *_: None,
            "__deepcopy__": _deep_copy(torch.Tensor.__deepcopy__),
        },
        torch: {"empty": _empty(seen), "tensor": _tensor(seen)},
    }


def _events(seen: Seen) -> tuple[type, type]:
    class Event:
        def __init__(self, *_: Any, **__: Any) -> None: ...
        def record(self, *_: Any) -> None: ...
        def query(self) -> bool:
            return True

        def synchronize(self) -> None:
            seen.wait("event")

    class Stream:
        def __init__(self, *_: Any, **__: Any) -> None: ...
        def record_event(self, *_: Any) -> Event:
            return Event()

        def wait_event(self, _: Any) -> None: ...
        def wait_stream(self, _: Any) -> None: ...
        def synchronize(self) -> None:
            seen.wait("stream")

    return Event, Stream


def _graphs(seen: Seen) -> tuple[type, Any]:
    class Graph:
        def __init__(self) -> None:
            self.recording = Recording()

        def replay(self) -> None:
            self.recording.check_alive()
            seen.launch("graph")

    @contextlib.contextmanager
    def capture(graph: Graph, **_: Any) -> Iterator[None]:
        seen.wait("synchronize")
        seen.capturing = True
        try:
            with seen.recorded(graph.recording):
                yield
        finally:
            seen.capturing = False

    return Graph, capture


def _empty(seen: Seen) -> Any:
    plain = torch.empty

    def empty(*args: Any, pin_memory: bool = False, **kwargs: Any) -> Tensor:
        out = plain(*args, **kwargs)
        return seen.pinned.note(out) if pin_memory else out

    return empty


def _tensor(seen: Seen) -> Any:
    plain = torch.tensor

    def tensor(*args: Any, device: Any = None, **kwargs: Any) -> Tensor:
        out = plain(*args, **kwargs)
        return out if device is None else out.to(device)  # a copy of the host's, as in torch

    return tensor


def _deep_copy(plain: Any) -> Any:
    """torch's asks a tensor for its address, which fake ones do not have."""

    def deep_copy(self: Tensor, memo: dict[int, Any]) -> Tensor:
        if not isinstance(self, FakeTensor):
            return plain(self, memo)  # type: ignore[no-any-return]
        if id(self) not in memo:
            copied = self.detach().clone()
            is_parameter = isinstance(self, torch.nn.Parameter)
            memo[id(self)] = torch.nn.Parameter(copied, self.requires_grad) if is_parameter else copied
        return memo[id(self)]  # type: ignore[no-any-return]

    return deep_copy


def _efficient_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """The kernel that torch takes on any GPU from sm_50 on; which one it would take is a question to the driver."""
    if not q.dtype == k.dtype == v.dtype or (attn_mask is not None and attn_mask.dtype == torch.bool):
        raise TypeError(f"memory-efficient attention does not take {q.dtype}, {k.dtype}, {v.dtype} or a boolean mask")
    bias = None
    if attn_mask is not None:
        bias = attn_mask.to(q.dtype).expand(q.shape[0], q.shape[1], q.shape[2], k.shape[2])
    keep = any(t.requires_grad for t in (q, k, v))
    out: Tensor = torch.ops.aten._scaled_dot_product_efficient_attention(
        q, k, v, bias, keep, dropout_p, is_causal, scale=scale
    )[0]
    return out


def _plain_attention(q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor | None = None, **kwargs: Any) -> Tensor:
    out: Tensor = torch.ops.aten._scaled_dot_product_attention_math(q, k, v, attn_mask, **kwargs)[0]
    return out
