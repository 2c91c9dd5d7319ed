"""A worker process: what it does, how it is asked, and how it died.

Processes are forked from a server process that has imported what they need (multiprocessing's fork server). The server
starts once and may be started early, so this module imports little.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import Connection
from typing import Any, TypeVar

from pipeline.core import memory

A = TypeVar("A")
B = TypeVar("B")
CONTEXT = multiprocessing.get_context("forkserver")
RESIZER = "cykooz_resizer" if find_spec("cykooz_resizer") else "torch"
PRELOADED = ["pipeline.data.shards.transcode", RESIZER]  # the modules that sharding's workers use
NAME = "image worker"  # of the processes
UNGUARDED = 78  # exit code of a worker whose main module starts workers itself
CRASHES = {getattr(signal, f"SIG{name}") for name in ("SEGV", "BUS", "ABRT", "FPE", "ILL", "TRAP", "SYS")}


def leave_if_worker() -> None:
    """End this process if it is a worker that imports a script which starts workers when it is imported."""
    if multiprocessing.current_process().name == NAME:
        os._exit(UNGUARDED)


@dataclass(frozen=True)
class Death:
    """How a process ended."""

    exit_code: int | None
    """Negative: a signal."""
    at_birth: bool
    """Before it could answer."""

    @property
    def is_out_of_time(self) -> bool:
        return self.exit_code == -signal.SIGPROF

    @property
    def is_from_outside(self) -> bool:
        """Whether it died of a signal that no decoder causes; 255 is what is told if the server is dead as well."""
        code = self.exit_code
        return code is None or code == 255 or (code < 0 and -code not in {*CRASHES, signal.SIGPROF})

    @property
    def text(self) -> str:
        if self.exit_code is not None and self.exit_code < 0:
            known = {each.value: each.name for each in signal.Signals}
            return known.get(-self.exit_code, f"signal {-self.exit_code}")
        return f"exit code {self.exit_code}"

    @property
    def birth_text(self) -> str:
        if self.exit_code == UNGUARDED:
            return (
                "a worker process imports the script that started it, which starts workers again: put `if __name__ == "
                '"__main__":` before what the script does'
            )
        return f"a worker process ended before its first image ({self.text}); what it printed is above"


class WorkerProcess:
    """A worker process, as the thread that it works for sees it."""

    def __init__(self, lock: threading.Lock, seconds: float, size: int) -> None:
        self.lock = lock
        self.is_dead = False
        self.is_fresh = True
        self.is_born = False
        self.connection, other = CONTEXT.Pipe()
        self.process = CONTEXT.Process(target=_work, args=(other, seconds, size), name=NAME, daemon=True)
        self.process.start()
        other.close()

    def map(self, function: Callable[[A], B], items: list[A]) -> list[B] | Death:
        """The function's answers, or how the process died; raises what the function raises."""
        try:
            self._await_birth()
            self.connection.send((function, items))
            answers = self.connection.recv()
        except (EOFError, OSError):
            return self._death()
        self.is_fresh = False
        if isinstance(answers, Failure):
            raise answers.error from RuntimeError(answers.text)
        return list(answers)

    def idle(self, seconds: float) -> Death | None:
        """How it died within so many seconds without work; None if it lives."""
        try:
            self._await_birth()
            if not self.connection.poll(seconds):
                return None
        except (EOFError, OSError):
            pass
        return self._death()

    def _await_birth(self) -> None:
        if not self.is_born:
            self.connection.recv()
            self.is_born = True

    def kill(self) -> None:
        if not self.is_dead:
            self.process.kill()

    def _death(self) -> Death:
        with self.lock:  # multiprocessing's own bookkeeping reads the exit code once only
            self.is_dead = True
            self.connection.close()
            self.process.join(10)
            return Death(self.process.exitcode, at_birth=not self.is_born)


class Failure:
    """An exception of the function, with the traceback that pickling loses."""

    def __init__(self, error: Exception) -> None:
        self.text = "".join(traceback.format_exception(error))
        self.error = error


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


def _work(connection: Connection[Any, Any], seconds: float, size: int) -> None:
    """All that a worker process does: answer blocks of items until its parent ends."""
    _set_up(size)
    if (torch := sys.modules.get("torch")) is not None:
        torch.set_num_threads(1)  # each core has a worker of its own
    connection.send("ready")
    while True:
        try:
            function, items = connection.recv()
        except EOFError:
            return
        try:
            answers: Any = [_timed(function, item, seconds) for item in items]
        except Exception as error:
            answers = Failure(error)
        signal.setitimer(signal.ITIMER_PROF, 0)
        connection.send(answers)


def _timed(function: Callable[[A], B], item: A, seconds: float) -> B:
    """The function's answer; SIGPROF, which nothing handles, ends the process if it takes too long."""
    signal.setitimer(signal.ITIMER_PROF, seconds)
    return function(item)


def _set_up(size: int) -> None:
    """Make a worker keep freed memory for the next image, take no more than its share, and exit with its parent.

    What native libraries print as they crash would stand between the lines of the command, so it goes nowhere.
    """
    memory.keep_freed_memory()
    memory.limit_growth(size + memory.MAX_KEPT_BYTES)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)  # in case other code started the server
    signal.signal(signal.SIGPROF, signal.SIG_DFL)

    def watch() -> None:
        parent = multiprocessing.parent_process()
        assert parent is not None
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
