"""The engine without Ray: worker processes that carry run folders to their end, several at a time, inside one job.

A worker that dies costs the run it had, nothing else. What became of the runs stands in their folders.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import connection, resource_tracker
from pathlib import Path
from typing import Any

from pipeline.jobs import execute
from pipeline.jobs.life import SIGNALS

POLL_SECONDS = 0.2


def run_trials(folders: Sequence[str], *, trials: int, gpus: int, stop: Callable[[], bool]) -> None:
    """Carry run folders out, `trials` at a time; begin no more once `stop()` is true, and wait for those at work.

    All workers share one GPU, so `gpus` changes nothing here.
    """
    waiting = deque(str(Path(folder).absolute()) for folder in folders)
    idle: list[Worker] = []
    busy: dict[Any, Worker] = {}
    try:
        while busy or (waiting and not stop()):
            while waiting and len(busy) < trials and not stop():
                worker = idle.pop() if idle else Worker()
                if worker.begin(waiting[0]):
                    waiting.popleft()
                    busy[worker.pipe] = worker
            for pipe in connection.wait(list(busy), POLL_SECONDS):
                worker = busy.pop(pipe)
                if worker.ended_well():
                    idle.append(worker)
    finally:
        for worker in (*idle, *busy.values()):
            worker.leave()


class Worker:
    """A process that carries out one run folder after another, as the job sees it."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, other_end = context.Pipe()
        self.process = context.Process(target=work, args=(other_end,))
        with signals_blocked():
            resource_tracker.ensure_running()  # lets SIGTERM through once it has started, so not in one block with
        with signals_blocked():
            self.process.start()
        other_end.close()

    def begin(self, folder: str) -> bool:
        """Whether the worker took the run; one that died while idle did not."""
        with contextlib.suppress(OSError):
            self.pipe.send(folder)
            return True
        return False

    def ended_well(self) -> bool:
        """Whether the worker is there for another run, once its pipe has something to say."""
        with contextlib.suppress(EOFError, OSError):
            self.pipe.recv()
            return True
        self.process.join()
        return False

    def leave(self) -> None:
        self.pipe.close()
        self.process.terminate()  # kept waiting while the worker is idle
        self.process.join()


def work(pipe: Any) -> None:
    """A worker's life, until the job closes the pipe or is killed."""
    threading.Thread(target=_leave_with_job, daemon=True).start()
    with contextlib.suppress(EOFError, OSError):
        while True:
            folder = pipe.recv()
            pipe.send(execute.execute_trial(folder))


def _leave_with_job() -> None:
    """When the job is killed, have the run at work save; the pipe tells the worker the rest."""
    job = multiprocessing.parent_process()
    assert job is not None
    job.join()
    os.kill(os.getpid(), signal.SIGTERM)


@contextlib.contextmanager
def signals_blocked() -> Iterator[None]:
    """Processes started in this block get no signal of Slurm's, which go to all, until they let it through.

    A signal that is blocked waits: a run that lets it through gets one that came before.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
