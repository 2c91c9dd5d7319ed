"""The engine without Ray: worker processes that execute runs, several at a time, inside one job.

A worker that dies costs the run that it had, nothing else. The state of the runs is in their folders.
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
from pipeline.jobs.signals import SIGNALS

POLL_SECONDS = 0.2


def run_trials(folders: Sequence[str], *, trials: int, gpus: Sequence[str], stop: Callable[[], bool]) -> None:
    """Execute the runs in these folders, `trials` at a time. Once `stop()` is true, start no more and wait.

    Each worker sees one of the GPUs, the same number of workers each.
    """
    free = [gpus[number % len(gpus)] if gpus else "" for number in range(trials)]
    waiting = deque(str(Path(folder).absolute()) for folder in folders)
    idle: list[Worker] = []
    busy: dict[Any, Worker] = {}
    try:
        while busy or (waiting and not stop()):
            while waiting and len(busy) < trials and not stop():
                worker = idle.pop() if idle else Worker(free.pop(0))
                if worker.start(waiting[0]):
                    waiting.popleft()
                    busy[worker.pipe] = worker
                else:
                    free.append(worker.gpu)
            for pipe in connection.wait(list(busy), POLL_SECONDS):
                worker = busy.pop(pipe)
                if worker.is_ready():
                    idle.append(worker)
                else:
                    free.append(worker.gpu)
    finally:
        for worker in (*idle, *busy.values()):
            worker.leave()


class Worker:
    """The job's end of a process that executes one run after another, on one GPU if it is given one."""

    def __init__(self, gpu: str = "") -> None:
        self.gpu = gpu
        context = multiprocessing.get_context("spawn")
        self.pipe, other_end = context.Pipe()
        self.process = context.Process(target=work, args=(other_end, gpu))
        with signals_blocked():
            resource_tracker.ensure_running()  # it unblocks SIGTERM once it has started: so the next has its own block
        with signals_blocked():
            self.process.start()
        other_end.close()

    def start(self, folder: str) -> bool:
        """Give the worker a run; False if it died while it was idle."""
        with contextlib.suppress(OSError):
            self.pipe.send(folder)
            return True
        return False

    def is_ready(self) -> bool:
        """Once its pipe has something to read: whether the worker lives and can take another run."""
        with contextlib.suppress(EOFError, OSError):
            self.pipe.recv()
            return True
        self.process.join()
        return False

    def leave(self) -> None:
        self.pipe.close()
        self.process.terminate()  # an idle worker blocks this signal; the closed pipe ends it
        self.process.join()


def work(pipe: Any, gpu: str) -> None:
    """What a worker does until the job closes the pipe or is killed."""
    if gpu:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu  # nothing here has asked CUDA yet
    threading.Thread(target=_leave_with_job, daemon=True).start()
    with contextlib.suppress(EOFError, OSError):
        while True:
            folder = pipe.recv()
            pipe.send(execute.execute_trial(folder))


def _leave_with_job() -> None:
    """When the job is killed, make the running trial save; then the pipe ends the worker."""
    job = multiprocessing.parent_process()
    assert job is not None
    job.join()
    os.kill(os.getpid(), signal.SIGTERM)


@contextlib.contextmanager
def signals_blocked() -> Iterator[None]:
    """Processes started in this block do not get Slurm's signals, which go to all processes, until they unblock them.

    A blocked signal waits: a run that unblocks it gets one that arrived before.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
