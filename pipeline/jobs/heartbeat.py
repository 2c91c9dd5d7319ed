"""The heartbeat of a run that a process works on; `Run.silence` reads it."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator

from pipeline.runs.folder import Run

SECONDS = 10.0


@contextlib.contextmanager
def heartbeat(run: Run) -> Iterator[None]:
    """Touch the run's lock file every `SECONDS`, so that a dead run can be told from a slow one."""
    over = threading.Event()

    def beat() -> None:
        while True:
            with contextlib.suppress(OSError):
                os.utime(run["lock"])
            if over.wait(SECONDS):
                return

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
