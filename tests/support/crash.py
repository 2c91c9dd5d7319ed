"""Work for worker processes, some of which ends them. It has its own file because every worker imports it."""

from __future__ import annotations

import os
import signal
import time


def process(number: int) -> int:
    """The worker's process id, a moment later, so that every worker has its turn."""
    time.sleep(0.001)
    return os.getpid()


def tenfold(number: int) -> int:
    return number * 10


def tenfold_but_40(number: int) -> int:
    if number == 40:
        os._exit(3)
    return number * 10


def tenfold_but_3_and_90(number: int) -> int:
    if number in (3, 90):
        os.kill(os.getpid(), signal.SIGSEGV)
    return number * 10


def killed_at_5(number: int) -> int:
    if number == 5:
        os.kill(os.getpid(), signal.SIGKILL)
    return number * 10


def endless_at_7(number: int) -> int:
    while number == 7:
        pass
    return number * 10


def slowly(number: int) -> int:
    time.sleep(0.005)
    return number * 10


def dies_at_birth(*_: object) -> None:
    os._exit(4)
