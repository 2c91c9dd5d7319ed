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
from torch.utils._pytree import tree_map

from pipeline.learn import augment, average, backbones, checkpoint, finetune, graphs, loop, pretrain, probes, samples
from pipeline.learn.hardware import Hardware
from pipeline.learn.methods import cass, dino, dino_fb
from pipeline.learn.program import Program
from pipeline.rehearsal.cuda import Gpu, pretended
from pipeline.rehearsal.seen import Seen
from pipeline.runs.cluster import PATHS, Cluster
from pipeline.runs.folder import Run
from pipeline.runs.spec import PretrainSpec, Spec
from pipeline.runs.start_weights import StartWeights

PARTS: tuple[tuple[Any, str, str], ...] = (
    (cass, "augment", "augmentation"),
    (dino, "recoloured_crops", "augmentation"),
    (dino_fb, "cropped_then_recoloured", "augmentation"),
    (finetune, "augment", "augmentation"),
    (pretrain, "augment", "augmentation"),
    (samples.Samples, "_read", "loading"),
    (average.Averages, "end_epoch", "averaging"),
    (pretrain, "refresh_batch_norm", "batch-norm statistics"),
    (pretrain.Pretraining, "inputs", "inputs"),
    (finetune.Finetuning, "inputs", "inputs"),
    (pretrain.Pretraining, "loss", "forward"),
    (finetune.Finetuning, "loss", "forward"),
    (pretrain.Pretraining, "after_step", "after the step"),
    (pretrain.Pretraining, "end_epoch", "end of an epoch"),
    (finetune.Finetuning, "end_epoch", "end of an epoch"),
    (pretrain.Pretraining, "judge", "probes"),
    (graphs.Graph, "__init__", "capture"),
    (graphs.Graph, "replay", "replay"),
    (loop.Trainer, "take_step", "optimizer"),
    (loop.Trainer, "_read_losses", "reading losses"),
    (loop.Trainer, "_resume", "resuming"),
    (loop.Trainer, "state_dict", "checkpoint"),
    (checkpoint.Writer, "save", "checkpoint"),
    (checkpoint.Writer, "_write", "writing"),
    (backbones, "save_arms", "publishing"),
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


def build_empty(
    tag: str, *, outputs: int, image_size: int, weights: str, folder: Path, given: StartWeights | None = None
) -> nn.Module:
    """As `backbones.build`, with weights that are whatever is in the memory."""
    arguments = given.arguments if given else {}
    with torch.device("meta"):
        network = backbones.from_file(tag, None, outputs=outputs, image_size=image_size, arguments=arguments)
    return network.to_empty(device="cpu")


def load_checkpoint(load: Callable[..., Any]) -> Callable[..., Any]:
    """As `checkpoint.load`, by way of the host: `torch.load` cannot make memory on the device."""

    def loaded(run: Run, device: torch.device) -> dict[str, Any] | None:
        state = load(run, torch.device("cpu"))
        if state is None:
            return None
        moved = tree_map(lambda item: item.to(device) if isinstance(item, torch.Tensor) else item, state)
        return {**moved, "generators": state["generators"]}

    return loaded


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
        replace(checkpoint, ThreadPoolExecutor=Now, load=load_checkpoint(checkpoint.load))
        for owner, name, part in PARTS:
            replace(owner, **{name: _in_part(seen, part, getattr(owner, name))})
        augment._channels.cache_clear()  # what is kept on this device must not meet another one
        stack.callback(augment._channels.cache_clear)
        yield


def _in_part(seen: Seen, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
    def counted(*args: Any, **kwargs: Any) -> Any:
        with seen.doing(part):
            return function(*args, **kwargs)

    return counted


def hardware_of(gpu: Gpu, precision: str) -> Hardware:
    return Hardware(device="cuda", model=gpu.name, precision=precision, threads=1)


def site(folder: Path) -> Cluster:
    """A cluster whose files are in a folder."""
    paths: dict[str, Any] = {name: str(folder / name) for name in PATHS}
    return Cluster(**paths, device="cuda", checkpoint_minutes=1e6)


def data_of(spec: Spec, classes: int, images: int = 0) -> MadeUp:
    """Data of so many images a split; 0: of four steps an epoch."""
    names = tuple(f"class {number}" for number in range(classes))
    return MadeUp(spec.image_size, names, images or 4 * spec.batch_size)


@contextlib.contextmanager
def rehearsed(
    spec: Spec, precision: str, gpu: Gpu, classes: int = 8, *, images: int = 0, cuda_graphs: bool = False
) -> Iterator[tuple[Seen, loop.Trainer]]:
    """The trainer of a spec's program on a pretended GPU, before the first step; a fine-tune starts from weights that
    are as made-up as any."""
    data, hardware, folder = data_of(spec, classes, images), hardware_of(gpu, precision), Path("nowhere")
    program: Program
    with pretended(gpu) as seen, made_up(seen, data):
        if isinstance(spec, PretrainSpec):
            program = pretrain.Pretraining(spec, site(folder), hardware.torch_device)
        else:
            spec = dataclasses.replace(spec, pretrain=None)
            program = finetune.Finetuning(spec, data, site(folder), hardware)  # type: ignore[arg-type]
        yield (
            seen,
            loop.Trainer(
                program,
                Run(folder),
                hardware,
                checkpoint_seconds=1e6,
                should_stop=lambda: False,
                graphs=cuda_graphs,
            ),
        )
