"""Workers that map a function over pictures in order; processes outlive a picture that kills one of them."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from typing import Any, TypeVar

from pipeline import memory
from pipeline.data import images

A = TypeVar("A")
B = TypeVar("B")


class Workers:
    """Workers that map a function over items in order, a bounded number of items ahead.

    They are processes, which start in half a second, or with `threads=True` threads, which start at once: for work
    that leaves Python's lock alone and cannot crash. An item that kills its process (a decoder's crash, memory) is
    tried once more by itself, then answered `BadPicture`.
    """

    def __init__(self, count: int, *, threads: bool = False) -> None:
        self.count = count
        self.pool: Executor = ThreadPoolExecutor(count) if threads else _start(count)

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        self.pool.shutdown(cancel_futures=True)

    def map(self, function: Callable[[A], B], items: Iterable[A]) -> Iterator[B | images.BadPicture]:
        source = iter(items)
        waiting: deque[tuple[list[A], Future[list[B]]]] = deque()

        def submit(block: list[A]) -> Future[list[B]]:
            try:
                return self.pool.submit(_each, function, block)
            except BrokenProcessPool:  # by a block that still waits; its own future says so when its turn comes
                self.pool = _start(self.count)
                return self.pool.submit(_each, function, block)

        def refill() -> None:
            while len(waiting) < 4 * self.count and (block := list(islice(source, 16))):
                waiting.append((block, submit(block)))

        refill()
        while waiting:
            block, future = waiting.popleft()
            try:
                answers: list[B | images.BadPicture] = list(future.result())
            except BrokenProcessPool:
                answers = _one_by_one(function, block)
                waiting = deque((other, submit(other) if _is_lost(its) else its) for other, its in waiting)
            refill()
            yield from answers


def _one_by_one(function: Callable[[A], B], block: list[A]) -> list[B | images.BadPicture]:
    answers: list[B | images.BadPicture] = []
    pool = _start(1)
    for item in block:
        try:
            answers.append(pool.submit(function, item).result())
        except BrokenProcessPool:
            answers.append(images.BadPicture("crashes the decoder"))
            pool = _start(1)
    pool.shutdown()
    return answers


def _start(count: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(count, mp_context=multiprocessing.get_context("spawn"), initializer=_settle)


def _is_lost(future: Future[Any]) -> bool:
    return future.done() and isinstance(future.exception(), BrokenProcessPool)


def _settle() -> None:
    """In a worker: keep memory for the next picture, and end when the parent is killed instead of waiting for ever.

    Slurm's signal before the time limit, which reaches every process of a job, is the parent's to answer.
    """
    memory.keep()
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)

    def watch() -> None:
        parent = multiprocessing.parent_process()
        assert parent is not None
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _each(function: Callable[[A], B], block: list[A]) -> list[B]:
    return [function(item) for item in block]
