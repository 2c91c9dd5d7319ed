"""What signals ask of a job's process, and how the process leaves.

SIGUSR2: the time limit is near (or a preemption that says so). Save and leave with `REQUEUE`, at which the job's batch
shell (jobs/slurm/batch) puts it back into the queue: this process may be in a container without Slurm's tools.
SIGTERM: a preemption, which Slurm requeues itself, or scancel, after which nothing may come back. Save and leave.
If both arrived, SIGTERM counts.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pipeline.runs.cluster import Cluster

STOPPED = 75  # exit code of a job that saved and left because it was asked to (EX_TEMPFAIL: try again)
REQUEUE = 85  # exit code of one that is to be put back into the queue (ERESTART)
BATCH_SHELL = "CASS_PIPELINE_BATCH_SHELL"  # environment variable, where a shell waits for that code: see requeue_with
STOP_FILE = "CASS_PIPELINE_STOP_FILE"  # environment variable: the file by which a fan-out tells its trials to stop
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2)


class Stop:
    """Inside its `with` block, signals are only noted: call it to ask whether one arrived.

    The training loop asks at every step boundary, saves and leaves. If SIGUSR2 arrives during a long step of another
    kind (the pixel map, the final test), the job is requeued without saving after `grace` seconds: its last checkpoint
    is on disk. A signal may reach this process alone, so `stop_file` is made at a signal, for other processes, which
    pass its path as their `watched_file`.
    """

    def __init__(self, *, grace: float = 0.0, stop_file: Path | None = None, watched_file: str | None = None) -> None:
        self.received: set[int] = set()
        self.grace = grace
        self.stop_file = stop_file
        self.watched_file = watched_file
        self.owner = os.getpid()
        self.before: dict[int, Any] = {}

    def __enter__(self) -> Stop:
        for number in SIGNALS:
            self.before[number] = signal.getsignal(number)
            if number != signal.SIGINT or self.before[number] != signal.SIG_IGN:  # a launch keeps Ctrl-C for itself
                signal.signal(number, self._note)
        if self.grace:
            self.before[signal.SIGALRM] = signal.signal(signal.SIGALRM, self._out_of_time)
        self.mask = signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)  # workers start with them blocked
        return self

    def __exit__(self, *error: object) -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, self.mask)
        if self.grace:
            signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def __call__(self) -> bool:
        return bool(self.received) or (self.watched_file is not None and os.path.exists(self.watched_file))

    @property
    def requeues(self) -> bool:
        """Whether the job is to be requeued."""
        return self.received == {signal.SIGUSR2}

    def _note(self, number: int, frame: object) -> None:
        if os.getpid() == self.owner:  # not in a child that inherited the handler
            self.received.add(number)
            if self.stop_file:
                with contextlib.suppress(OSError):  # a full disk, or no folder: raised here, it would end the trials
                    self.stop_file.touch()
            if self.requeues and self.grace:
                signal.setitimer(signal.ITIMER_REAL, self.grace)

    def _out_of_time(self, number: int, frame: object) -> None:
        if self.requeues:
            print("no time left to save; the last checkpoint is on disk", flush=True)
            if BATCH_SHELL in os.environ:
                os._exit(REQUEUE)  # a helper process that does not leave must not keep this one until the limit
            leave(STOPPED, self)


def leave(code: int, stop: Stop) -> None:
    """End the job: to be requeued if the signal asked for that, else with exit code `code`. With code 0 it returns."""
    if code == STOPPED and stop.requeues:
        if BATCH_SHELL in os.environ:
            sys.exit(REQUEUE)
        if callable(handler := stop.before[signal.SIGUSR2]):
            handler(signal.SIGUSR2, None)  # submitit's on this machine: it ends this process
    if code:
        sys.exit(code)


def starts_left(requeues: int) -> bool:
    """Whether the batch shell may put this job back into the queue; `requeues` is the site's limit of that."""
    return int(os.environ.get("SLURM_RESTART_COUNT") or 0) < requeues


def requeue_with(request: str) -> None:
    """Have the batch shell change the job before it starts again; `request` is what `scontrol update` takes."""
    Path(os.environ[BATCH_SHELL]).write_text(f"{request}\n", encoding="utf-8")


def leave_at_time_limit() -> None:
    """For work that saves as it proceeds: at the time limit's signal, end the process and have the job requeued."""
    if BATCH_SHELL in os.environ:
        signal.signal(signal.SIGUSR2, lambda number, frame: os._exit(REQUEUE))


def grace_of(site: Cluster) -> float:
    """How many seconds a Slurm job may take to save before it is requeued without; 0 outside Slurm: no limit."""
    return site.slurm.signal_seconds * 2 / 3 if "SLURM_JOB_ID" in os.environ else 0.0


@contextlib.contextmanager
def signals_noted(said: str) -> Iterator[Callable[[], bool]]:
    """Note SIGINT and SIGTERM instead of dying of them; gives a function that says whether one arrived.

    The first one prints `said` at once.
    """
    received: list[int] = []

    def note(number: int, frame: object) -> None:
        if not received:
            with contextlib.suppress(OSError):
                os.write(2, f"\n{said}\n".encode())  # print may be interrupted in a print
        received.append(number)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(received)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
