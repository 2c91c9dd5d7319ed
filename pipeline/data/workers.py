"""Map a function over images with worker processes or threads, in order, even if an image kills its process.

Each process belongs to a thread of this process, which gives it a block of items, waits for the answers, and finds out
whose fault it is if it dies: an image's, the machine's or a person's.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from pipeline.core import memory
from pipeline.data.decoders.formats import BadImage
from pipeline.data.processes import Death, WorkerProcess, leave_if_worker, start_server

A = TypeVar("A")
B = TypeVar("B")
TIME_LIMIT = 120.0  # seconds of processor time for an image; one of 300 million pixels takes some ten
BLOCK, MOST = 16, 64  # items that a process gets at once, and of those that belong together
MAX_KILLS = 4  # for each process: deaths from outside that are made good before the job ends


class WorkersLost(ValueError):
    """Worker processes die, and not because of an image."""


class Workers:
    """A pool of `count` processes that maps a function over items in order, a bounded number of items ahead.

    With `threads=True` it is a pool of threads, which start at once: for work that releases Python's lock and cannot
    crash. An item that takes more than `seconds` of processor time, or that alone kills a fresh process twice, has a
    `BadImage` as its answer. Raises `WorkersLost` if processes die at birth or are killed from outside.
    """

    def __init__(self, count: int, *, threads: bool = False, seconds: float = TIME_LIMIT) -> None:
        leave_if_worker()
        self.count = count
        self.seconds = seconds
        self.is_stopping = False
        self.kills = 0
        self.lock = threading.Lock()
        self.mine = threading.local()
        self.alive: set[WorkerProcess] = set()
        self.pool = ThreadPoolExecutor(count)
        self.run: Callable[[Callable[[Any], Any], list[Any]], list[Any]]
        self.run = _map_block if threads else self._map_in_process
        if not threads:
            start_server()

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        self.is_stopping = True
        with self.lock:
            for process in self.alive:
                process.kill()
        self.pool.shutdown(cancel_futures=True)

    def map(
        self, function: Callable[[A], B], items: Iterable[A], *, together: Callable[[A], object] | None = None
    ) -> Iterator[B | BadImage]:
        """The function's answer for each item, in order.

        Neighbours for which `together` is equal go to one process, as far as a block may grow: images of a file that
        it then opens once.
        """
        blocks = _blocks(items, together)
        waiting: deque[Future[list[B | BadImage]]] = deque()
        ahead = 0

        def refill() -> None:
            nonlocal ahead
            while ahead < 4 * BLOCK * self.count and (block := next(blocks, None)):
                ahead += len(block)
                waiting.append(self.pool.submit(self.run, function, block))

        refill()
        while waiting:
            answers = waiting.popleft().result()
            ahead -= len(answers)
            refill()
            yield from answers

    def _map_in_process(self, function: Callable[[A], B], block: list[A]) -> list[B | BadImage]:
        """The answers for a block; if its process dies, for each item by itself."""
        answers = self._process().map(function, block)
        if not isinstance(answers, Death):
            return list(answers)
        self._note(answers)
        return [self._answer_alone(function, item) for item in block]

    def _answer_alone(self, function: Callable[[A], B], item: A) -> B | BadImage:
        """The answer for one item, in fresh processes once it has killed one."""
        crashes = kills = 0
        while True:
            process = self._process()
            was_fresh, started = process.is_fresh, time.monotonic()
            answers = process.map(function, [item])
            if not isinstance(answers, Death):
                return answers[0]
            self._note(answers)
            if answers.is_out_of_time:
                return BadImage(
                    f"takes more than {self.seconds:g} s of processor time; convert it or cut it into tiles"
                )
            crashes += was_fresh
            kills += answers.is_from_outside
            if crashes >= 2 and (not kills or self._lives_idle(time.monotonic() - started)):
                with self.lock:
                    self.kills = max(0, self.kills - kills - 1)  # they were the item's fault
                return BadImage(f"crashes the decoder ({answers.text})")

    def _lives_idle(self, seconds: float) -> bool:
        """Whether a fresh process that does nothing lives as long as the item's did: then the item killed that."""
        death = self._process().idle(max(1.0, seconds))
        if death is not None:
            self._note(death)
        return death is None

    def _note(self, death: Death) -> None:
        """Count a death; raises `WorkersLost` if it, or the number of deaths, cannot be an image's fault."""
        if self.is_stopping:
            raise WorkersLost("the workers were stopped")
        if not death.is_from_outside:
            if death.at_birth:
                raise WorkersLost(death.birth_text)
            return
        with self.lock:
            self.kills += 1
            if self.kills <= MAX_KILLS * self.count:
                return
        raise WorkersLost(
            f"worker processes were killed {self.kills} times ({death.text}), by the system for lack of memory or by a "
            "person, and no image is to blame; run the same command again to continue, with fewer workers if memory "
            "is short"
        )

    def _process(self) -> WorkerProcess:
        """The living process of this thread."""
        process: WorkerProcess | None = getattr(self.mine, "process", None)
        while process is None or process.is_dead:
            with self.lock:
                if self.is_stopping:
                    raise WorkersLost("the workers were stopped")
                self.alive = {each for each in self.alive if not each.is_dead}
                try:
                    start_server()  # if it was killed too
                    process = WorkerProcess(self.lock, self.seconds, memory.share_of_worker(self.count))
                    self.alive.add(process)
                except (EOFError, ConnectionError):
                    process = None
            if process is None:
                self._note(Death(None, at_birth=True))
        self.mine.process = process
        return process


def _blocks(items: Iterable[A], together: Callable[[A], object] | None) -> Iterator[list[A]]:
    block: list[A] = []
    for item in items:
        belongs = together is not None and len(block) > 0 and together(item) == together(block[-1])
        if len(block) >= (MOST if belongs else BLOCK):
            yield block
            block = []
        block.append(item)
    if block:
        yield block


def _map_block(function: Callable[[A], B], block: list[A]) -> list[B]:
    return [function(item) for item in block]
