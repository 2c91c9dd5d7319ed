"""Workers that map a function over images in order; processes outlive an image that kills one of them.

Processes are forked from one that has imported what they need (multiprocessing's fork server): that is done once, and
may be begun early. This module is light, so that it can be.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from multiprocessing import forkserver, resource_tracker
from typing import TYPE_CHECKING, Any, TypeVar

from pipeline.core import memory

if TYPE_CHECKING:
    from pipeline.data import images

A = TypeVar("A")
B = TypeVar("B")
CONTEXT = multiprocessing.get_context("forkserver")
IMPORTED = ["pipeline.data.shards.transcode", "cykooz_resizer"]  # what sharding's workers need


class Workers:
    """Workers that map a function over items in order, a bounded number of items ahead.

    They are processes, or with `threads=True` threads, which start at once: for work that leaves Python's lock alone
    and cannot crash. An item that kills its process (a decoder's crash, memory) is tried once more by itself, then
    answered `BadImage`.
    """

    def __init__(self, count: int, *, threads: bool = False) -> None:
        self.count = count
        self.pool: Executor = ThreadPoolExecutor(count) if threads else _start(count)

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        self.pool.shutdown(cancel_futures=True)

    def map(self, function: Callable[[A], B], items: Iterable[A]) -> Iterator[B | images.BadImage]:
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
                answers: list[B | images.BadImage] = list(future.result())
            except BrokenProcessPool:
                answers = _one_by_one(function, block)
                waiting = deque((other, submit(other) if _is_lost(its) else its) for other, its in waiting)
            refill()
            yield from answers


def prepare() -> None:
    """Begin to start the process that workers are forked from, if there is none: soon needed, it is ready sooner.

    Ctrl-C and Slurm's signal before the time limit reach every process of a job, but are its first one's to answer:
    this process and the workers are born with them blocked.
    """
    resource_tracker.ensure_running()  # lets Ctrl-C through once it has started, so not while it is blocked
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGUSR2})
    try:
        CONTEXT.set_forkserver_preload(IMPORTED if _is_module() else [])
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _is_module() -> bool:
    """Whether this is `python -m` something, which looks in the current folder first, as the server does.

    Up to Python 3.12.7 and in 3.13.0 the server is told of no other path: it might import another copy of this package.
    """
    return os.path.realpath(sys.path[0] or ".") == os.path.realpath(".")


def _one_by_one(function: Callable[[A], B], block: list[A]) -> list[B | images.BadImage]:
    from pipeline.data import images

    answers: list[B | images.BadImage] = []
    pool = _start(1)
    for item in block:
        try:
            answers.append(pool.submit(function, item).result())
        except BrokenProcessPool:
            answers.append(images.BadImage("crashes the decoder"))
            pool = _start(1)
    pool.shutdown()
    return answers


def _start(count: int) -> ProcessPoolExecutor:
    prepare()
    return ProcessPoolExecutor(count, mp_context=CONTEXT, initializer=_settle)


def _is_lost(future: Future[Any]) -> bool:
    return future.done() and isinstance(future.exception(), BrokenProcessPool)


def _settle() -> None:
    """In a worker: keep memory for the next image, and end when the parent is killed instead of waiting for ever."""
    memory.keep_freed_memory()
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)  # also where the server was started by others

    def watch() -> None:
        parent = multiprocessing.parent_process()
        assert parent is not None
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _each(function: Callable[[A], B], block: list[A]) -> list[B]:
    return [function(item) for item in block]
