"""Do something as another user of the machine; needs root."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable


def as_user(number: int, action: Callable[[], None]) -> str:
    """What goes wrong when another user does something, in a process of its own; empty if nothing does."""
    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()

    def child() -> None:
        os.setgroups([])
        os.setgid(number)
        os.setuid(number)
        os.umask(0o077)
        try:
            action()
            queue.put("")
        except BaseException as error:
            queue.put(f"{type(error).__name__}: {error}")

    process = context.Process(target=child)
    process.start()
    said = queue.get()
    process.join()
    return str(said)
