"""Work for worker processes, some of which ends them; in a file of its own, for each of them imports it."""

from __future__ import annotations

import os
import signal
import time


def process(item: int) -> int:
    """Its own number, a moment later: every worker has its turn."""
    time.sleep(0.001)
    return os.getpid()


def tenfold(item: int) -> int:
    return item * 10


def tenfold_but_40(item: int) -> int:
    if item == 40:
        os._exit(3)
    return item * 10


def tenfold_but_3_and_90(item: int) -> int:
    if item in (3, 90):
        os.kill(os.getpid(), signal.SIGKILL)
    return item * 10
