"""Batches are what was asked for, whether read ahead or not, from a map or from the tars."""

from __future__ import annotations

import threading
import zlib

import numpy as np
import pytest
import torch

from pipeline.data.pixel_map import PixelMap
from pipeline.learn.samples import Samples

IMAGES = np.random.default_rng(0).integers(0, 256, (50, 8, 8, 3), dtype=np.uint8)
ROWS = np.arange(5, 45)


class Slow:
    """Images that are not in a map."""

    side = 8

    def __init__(self) -> None:
        self.asked: list[list[int]] = []
        self.threads: set[str] = set()

    def __len__(self) -> int:
        return len(IMAGES)

    def read(self, rows, out) -> None:
        self.asked.append(list(rows))
        self.threads.add(threading.current_thread().name)
        out[:] = IMAGES[rows]


@pytest.fixture(params=["map", "slow"])
def samples(request, tmp_path) -> Samples:
    if request.param == "slow":
        return Samples(Slow(), ROWS, torch.device("cpu"))
    path = tmp_path / "map.u8"
    IMAGES.tofile(path)
    with open(path, "rb") as file:
        return Samples(PixelMap(path, file, 8, [zlib.crc32(IMAGES.tobytes())]), ROWS, torch.device("cpu"))


def test_every_image_comes_once_an_epoch_in_the_order_of_seed_and_epoch(samples) -> None:
    seen = []
    for step in range(6):  # the last batch is smaller
        positions, images = samples.step(77, 3, step, 7)
        assert (images.numpy() == IMAGES[ROWS[positions]]).all()
        seen += list(positions)
    assert seen == list(samples.permutation(77, 3)) and sorted(seen) == list(range(40))


def test_blocks_come_in_their_order(samples) -> None:
    blocks = [np.array([3, 1]), np.array([0]), np.array([7, 8, 9])]
    for positions, images in zip(blocks, samples.blocks(blocks), strict=True):
        assert (images.numpy() == IMAGES[ROWS[positions]]).all()
    assert list(samples.blocks([])) == []


def test_what_was_read_ahead_in_vain_changes_nothing(samples) -> None:
    samples.take(np.array([0, 1]), then=np.array([2, 3]))
    assert (samples.take(np.array([9, 8, 7])).numpy() == IMAGES[ROWS[[9, 8, 7]]]).all()
    assert (samples.take(np.array([2, 3])).numpy() == IMAGES[ROWS[[2, 3]]]).all()


def test_the_next_batch_is_read_ahead_by_a_thread() -> None:
    slow = Slow()
    samples = Samples(slow, ROWS, torch.device("cpu"))
    samples.take(np.array([0]), then=np.array([1, 2]))
    samples.take(np.array([1, 2]), then=np.array([3]))
    samples.take(np.array([3]))
    assert slow.asked == [[5], [6, 7], [8]]
    assert not slow.threads & {threading.main_thread().name}


def test_an_error_of_the_thread_comes_out_where_the_batch_is_asked_for() -> None:
    class Broken(Slow):
        def read(self, rows, out) -> None:
            if 6 in rows:
                raise ValueError("mine.tar: the bytes of p1 are not those that were written")
            super().read(rows, out)

    samples = Samples(Broken(), ROWS, torch.device("cpu"))
    samples.take(np.array([0]), then=np.array([1]))
    with pytest.raises(ValueError, match="the bytes of p1"):
        samples.take(np.array([1]))
