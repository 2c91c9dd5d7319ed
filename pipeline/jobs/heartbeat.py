"""The heartbeat of a run that a process works on; `Run.silence` reads it."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator

from pipeline.core import clock
from pipeline.runs.folder import Run

SECONDS = 10.0
LATE = 20.0  # seconds by which only a process wakes late that was stopped


@contextlib.contextmanager
def heartbeat(run: Run) -> Iterator[None]:
    """Touch the run's lock file every `SECONDS`, so that a dead run can be told from a slow one.

    Where it wakes much too late, the process was stopped: that time is not the run's.
    """
    over = threading.Event()

    def beat() -> None:
        while True:
            with contextlib.suppress(OSError):
                os.utime(run["lock"])
            slept = time.monotonic()
            if over.wait(SECONDS):
                return
            if (late := time.monotonic() - slept - SECONDS) > LATE:
                clock.note_stopped(late)

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
