"""The time in which this process works: none passes while it is stopped, as the processes of a suspended job are."""

from __future__ import annotations

import time

_stopped = 0.0


def working() -> float:
    """Seconds of a clock that rests while the process is stopped; only differences mean something."""
    return time.monotonic() - _stopped


def note_stopped(seconds: float) -> None:
    """Say that the process was stopped so long. Whoever reads the clock in between sees it go back by as much."""
    global _stopped
    _stopped += seconds
