"""Which images are in which batch: the order of an epoch is a function of (seed, epoch), not a state."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import zip_longest

import numpy as np
import torch
from torch import Tensor

from pipeline.core.seeds import derive
from pipeline.data.pixel_map import PixelMap, Pixels
from pipeline.data.shards.index import Shards
from pipeline.data.shards.read import TarReader

EXPECTED = 12  # steps whose images are asked for ahead where they are far away


class Samples:
    """Rows of a dataset's images, given out in batches and read one batch ahead.

    Reading ahead changes time only, never the result. For a GPU the next batch is copied from pinned memory on a stream
    of its own. On a CPU a batch of a pixel map takes no longer than a copy of it, so a thread is used only where images
    are decoded.
    """

    def __init__(self, pixels: Pixels, rows: np.ndarray, device: torch.device) -> None:
        self.side = pixels.side
        self._pixels = pixels
        self._gather = gather(pixels)
        self.rows = rows  # int64 [n]
        self.device = device
        self._order: tuple[tuple[int, int], np.ndarray] = ((-1, -1), np.empty(0))  # of the current epoch
        ahead = device.type == "cuda" or not isinstance(pixels, PixelMap)
        # the current batch and, read ahead, the next one; one slot where it is written again at once, still in the
        # cache
        self._slots = [Slot(device) for _ in range(1 + ahead)]
        self._thread = ThreadPoolExecutor(1, "read-ahead") if ahead else None
        self._next: tuple[np.ndarray, Future[Batch]] | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, positions: np.ndarray, then: np.ndarray | None = None) -> Tensor:
        """The images at positions [k] of the rows, on the device: uint8 [k, h, w, 3], valid until the next take.

        `then` are the positions of that next take.
        """
        if self._thread is None:
            return self._read(positions).images
        if self._next is not None and np.array_equal(self._next[0], positions):
            coming = self._next[1]
        else:
            coming = self._thread.submit(self._read, positions)
        self._next = None
        if then is not None and len(then):
            self._next = (then, self._thread.submit(self._read, then))
        found = coming.result()
        if found.copied is not None:
            stream = torch.cuda.current_stream(self.device)
            stream.wait_event(found.copied)
            found.images.record_stream(stream)
        return found.images

    def step(self, seed: int, epoch: int, step: int, size: int) -> tuple[np.ndarray, Tensor]:
        """The positions [k] of a step's images and the images, as `take`; those of the next step are read ahead."""
        positions = self.batch(seed, epoch, step, size)
        self._expect(self.batch(seed, epoch, later, size) for later in range(step, step + EXPECTED))
        return positions, self.take(positions, then=self.batch(seed, epoch, step + 1, size))

    def blocks(self, blocks: Sequence[np.ndarray]) -> Iterator[Tensor]:
        """The images of blocks of positions, as `take`."""
        for number, (positions, then) in enumerate(zip_longest(blocks, blocks[1:])):
            self._expect(blocks[number : number + EXPECTED])
            yield self.take(positions, then)

    def _expect(self, blocks: Iterable[np.ndarray]) -> None:
        """Have the images of a batch, unless it is being read, and of later ones read where that takes long.

        It changes no result.
        """
        if not isinstance(self._pixels, TarReader):
            return
        for number, positions in enumerate(blocks):
            if number or self._next is None:
                self._pixels.expect(self.rows[positions])

    def permutation(self, seed: int, epoch: int) -> np.ndarray:
        """The order of an epoch: int64 [n]."""
        return np.random.default_rng(derive("order", seed, epoch)).permutation(len(self.rows))

    def batch(self, seed: int, epoch: int, step: int, size: int) -> np.ndarray:
        """The positions of a step's images in the epoch's order: int64 [size], fewer at the end."""
        if self._order[0] != (seed, epoch):
            self._order = ((seed, epoch), self.permutation(seed, epoch))
        return self._order[1][step * size : (step + 1) * size]

    def _read(self, positions: np.ndarray) -> Batch:
        slot = self._slots[0]
        self._slots.reverse()
        memory = slot.reserve(len(positions), self.side)
        self._gather(self.rows[positions], memory)
        return slot.send(memory)


class Labelled:
    """The labelled images among some rows of the shards, with their targets [n, classes] of 0 and 1."""

    def __init__(self, pixels: Pixels, shards: Shards, rows: list[int], device: torch.device) -> None:
        self.rows, targets = labelled(shards, rows)
        self.samples = Samples(pixels, self.rows, device)
        self.targets = torch.from_numpy(targets)

    def __len__(self) -> int:
        return len(self.rows)


def labelled(shards: Shards, rows: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """The labelled images among some rows, int64 [n], and their targets of 0 and 1, float32 [n, classes]."""
    kept = [(row, names) for row, names in zip(rows, shards.labels(rows), strict=True) if names is not None]
    targets = np.array([[name in names for name in shards.classes] for _, names in kept], dtype=np.float32)
    return np.array([row for row, _ in kept], dtype=np.int64), targets.reshape(len(kept), len(shards.classes))


def gather(pixels: Pixels) -> Callable[[np.ndarray, Tensor], object]:
    """What reads rows int64 [k] into a tensor uint8 [k, side, side, 3], from a map as fast as memory is copied.

    Reading a map raises `DamagedMap` where a spot check finds that it was changed.
    """
    if not isinstance(pixels, PixelMap):
        return lambda rows, out: pixels.read(rows, out.numpy())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the map is read-only, which a tensor cannot express
        source = torch.from_numpy(pixels.pixels)

    def read(rows: np.ndarray, out: Tensor) -> None:
        torch.index_select(source, 0, torch.from_numpy(rows), out=out)
        pixels.note_read(len(rows))

    return read


@dataclass(frozen=True)
class Batch:
    """Images on the device, complete once `copied` has happened."""

    images: Tensor
    copied: torch.cuda.Event | None


class Slot:
    """Host memory that batches are read into; pinned, with a stream for the copy, where there is a GPU."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.memory = torch.empty(0, dtype=torch.uint8)
        self.stream = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]
        self.copied: torch.cuda.Event | None = None

    def reserve(self, count: int, side: int) -> Tensor:
        """Memory for images, uint8 [count, side, side, 3], whose last copy to the device has ended."""
        if self.copied is not None:
            self.copied.synchronize()
        if len(self.memory) < count:
            shape = (count, side, side, 3)
            self.memory = torch.empty(shape, dtype=torch.uint8, pin_memory=self.stream is not None)
        return self.memory[:count]

    def send(self, memory: Tensor) -> Batch:
        """Start the copy of that memory to the device."""
        if self.stream is None:
            return Batch(memory, None)
        with torch.cuda.stream(self.stream):
            images = memory.to(self.device, non_blocking=True)
            self.copied = self.stream.record_event()
        return Batch(images, self.copied)


def draws(*parts: int | str) -> torch.Generator:
    """A CPU generator that is a function of its parts, e.g. `draws("augment", seed, epoch, step)`."""
    return torch.Generator().manual_seed(derive(*parts))
