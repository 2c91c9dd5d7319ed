"""Map a function over images with worker processes or threads, in order, even if an image kills its process.

Processes are forked from a server process that has imported what they need (multiprocessing's fork server). The server
starts once and may be started early, so this module imports little.
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
PRELOADED = ["pipeline.data.shards.transcode", "cykooz_resizer"]  # the modules that sharding's workers use


class Workers:
    """A pool of `count` processes that maps a function over items in order, a bounded number of items ahead.

    With `threads=True` it is a pool of threads, which start at once: for work that releases Python's lock and cannot
    crash. An item that kills its process (a decoder's crash, memory) is tried once more alone; if it does so again, its
    answer is a `BadImage`.
    """

    def __init__(self, count: int, *, threads: bool = False) -> None:
        self.count = count
        self.pool: Executor = ThreadPoolExecutor(count) if threads else _processes(count)

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        self.pool.shutdown(cancel_futures=True)

    def map(self, function: Callable[[A], B], items: Iterable[A]) -> Iterator[B | images.BadImage]:
        """The function's answer for each item, in order."""
        source = iter(items)
        waiting: deque[tuple[list[A], Future[list[B]]]] = deque()

        def submit(block: list[A]) -> Future[list[B]]:
            try:
                return self.pool.submit(_map_block, function, block)
            except BrokenProcessPool:  # an earlier block did it; that block's future raises when its turn comes
                self.pool = _processes(self.count)
                return self.pool.submit(_map_block, function, block)

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
                waiting = deque((later, submit(later) if _is_lost(its) else its) for later, its in waiting)
            refill()
            yield from answers


def start_server() -> None:
    """Start the server process that workers are forked from, unless it runs; returns before it is ready.

    Ctrl-C and Slurm's signal before the time limit reach every process of a job, but only its first process handles
    them: the server and the workers start with them blocked.
    """
    resource_tracker.ensure_running()  # it unblocks Ctrl-C when it starts, so it must start before the block
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGUSR2})
    try:
        CONTEXT.set_forkserver_preload(PRELOADED if _is_module() else [])
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _is_module() -> bool:
    """Whether this process searches the current folder first for modules, as `python -m` and the server do.

    Up to Python 3.12.7 and in 3.13.0 the server gets no other path, so it could import another copy of this package.
    """
    return os.path.realpath(sys.path[0] or ".") == os.path.realpath(".")


def _one_by_one(function: Callable[[A], B], block: list[A]) -> list[B | images.BadImage]:
    from pipeline.data import images

    answers: list[B | images.BadImage] = []
    pool = _processes(1)
    for item in block:
        try:
            answers.append(pool.submit(function, item).result())
        except BrokenProcessPool:
            answers.append(images.BadImage("crashes the decoder"))
            pool = _processes(1)
    pool.shutdown()
    return answers


def _processes(count: int) -> ProcessPoolExecutor:
    start_server()
    return ProcessPoolExecutor(count, mp_context=CONTEXT, initializer=_set_up)


def _is_lost(future: Future[Any]) -> bool:
    return future.done() and isinstance(future.exception(), BrokenProcessPool)


def _set_up() -> None:
    """Make a worker keep freed memory for the next image, and exit when its parent is killed."""
    memory.keep_freed_memory()
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)  # in case other code started the server

    def watch() -> None:
        parent = multiprocessing.parent_process()
        assert parent is not None
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _map_block(function: Callable[[A], B], block: list[A]) -> list[B]:
    return [function(item) for item in block]
