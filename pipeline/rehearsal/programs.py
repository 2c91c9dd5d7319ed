"""The project's own programs without data or weights: what they read is made up, what they do is not."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import nn

from pipeline.learn import average, backbones, finetune, loop, pretrain, probes, samples
from pipeline.learn.hardware import Hardware
from pipeline.learn.methods import cass, dino, dino_fb
from pipeline.learn.program import Program
from pipeline.rehearsal.cuda import Gpu
from pipeline.rehearsal.seen import Seen
from pipeline.runs.cluster import PATHS, Cluster
from pipeline.runs.spec import FinetuneSpec, PretrainSpec, Spec

PARTS: tuple[tuple[Any, str, str], ...] = (
    (cass, "augment", "augmentation"),
    (dino, "recoloured_crops", "augmentation"),
    (dino_fb, "cropped_then_recoloured", "augmentation"),
    (finetune, "augment", "augmentation"),
    (pretrain, "augment", "augmentation"),
    (samples.Slot, "send", "loading"),
    (average.Averages, "end_epoch", "averaging"),
    (pretrain.Pretraining, "loss", "forward"),
    (finetune.Finetuning, "loss", "forward"),
    (pretrain.Pretraining, "after_step", "after the step"),
    (pretrain.Pretraining, "end_epoch", "end of an epoch"),
    (finetune.Finetuning, "end_epoch", "end of an epoch"),
    (pretrain.Pretraining, "judge", "probes"),
    (loop.Trainer, "take_step", "optimizer"),
    (loop.Trainer, "_read_losses", "reading losses"),
    (loop.Trainer, "state_dict", "checkpoint"),
)
"""Where a part of a program begins: owner, name and part. A part inside another counts for itself alone."""


@dataclasses.dataclass(frozen=True)
class MadeUp:
    """What a program asks of `Shards`: labelled images of every class in each split, and no pixels."""

    size: int
    classes: tuple[str, ...]
    images: int
    """In each of train, val and test."""
    name: str = "made_up"
    index_checksum: str = "0" * 64

    @property
    def manifest(self) -> dict[str, Any]:
        return {"task": "multi-class", "metric": "f1_macro", "label_fractions": [0.5, 1.0], "classes": self.classes}

    @property
    def rows(self) -> dict[str, list[str]]:
        return {"key": [str(row) for row in range(3 * self.images)]}

    def of_split(self, split: str) -> list[int]:
        first = ("train", "val", "test").index(split) * self.images
        return list(range(first, first + self.images))

    def labels(self, rows: Sequence[int]) -> list[tuple[str, ...] | None]:
        return [(self.classes[row % len(self.classes)],) for row in rows]


@dataclasses.dataclass(frozen=True)
class NoPixels:
    """Images that nobody reads: whatever is in the memory stays there."""

    side: int

    def read(self, rows: np.ndarray, out: np.ndarray) -> None: ...


class Now:
    """An executor that works at once, in the caller's thread: the pretended device is not in others."""

    def __init__(self, *_: Any, **__: Any) -> None: ...

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Future[Any]:
        done: Future[Any] = Future()
        done.set_result(function(*arguments))
        return done

    def shutdown(self) -> None: ...


def build_empty(tag: str, *, outputs: int, image_size: int, weights: str, folder: Path) -> nn.Module:
    """As `backbones.build`, with weights that are whatever is in the memory."""
    with torch.device("meta"):
        network = backbones.from_file(tag, None, outputs=outputs, image_size=image_size)
    return network.to_empty(device="cpu")


@contextlib.contextmanager
def made_up(seen: Seen, data: MadeUp) -> Iterator[None]:
    """Programs that are built and run inside read made-up data, and their parts are told apart."""
    with contextlib.ExitStack() as stack:

        def replace(owner: Any, **names: Any) -> None:
            stack.enter_context(mock.patch.multiple(owner, **names))

        for module in (pretrain, finetune, probes):
            replace(module, shards_of=lambda *_, **__: data, open_pixels=lambda *_: NoPixels(data.size))
        replace(backbones, build=build_empty)
        replace(samples, ThreadPoolExecutor=Now)
        for owner, name, part in PARTS:
            replace(owner, **{name: _in_part(seen, part, getattr(owner, name))})
        yield


def _in_part(seen: Seen, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
    def counted(*args: Any, **kwargs: Any) -> Any:
        with seen.doing(part):
            return function(*args, **kwargs)

    return counted


def hardware_of(gpu: Gpu, precision: str) -> Hardware:
    return Hardware(device="cuda", model=gpu.name, precision=precision, threads=1)


def site(folder: Path) -> Cluster:
    """A cluster without files."""
    paths: dict[str, Any] = {name: str(folder / name) for name in PATHS}
    return Cluster(**paths, device="cuda", checkpoint_minutes=1e6)


def program_of(spec: Spec, data: MadeUp, hardware: Hardware) -> Program:
    """The program of a spec; a fine-tune starts from weights that are as made-up as any."""
    place = site(Path("nowhere"))
    if isinstance(spec, PretrainSpec):
        return pretrain.Pretraining(spec, place, hardware.torch_device)
    assert isinstance(spec, FinetuneSpec)
    return finetune.Finetuning(dataclasses.replace(spec, pretrain=None), data, place, hardware)  # type: ignore[arg-type]
