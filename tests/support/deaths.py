"""Kill a process with SIGKILL at every place of an operation where it touches a disk, one after the other."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock


def deaths(operation: Callable[[], object]) -> Iterator[int]:
    """Run the operation in a process that is killed before its first touch of a disk, then its second, and so on.

    Yields the number of each touch once that process is dead; ends when a process survives. The caller repairs what a
    dead process left and makes the place as it was before.
    """
    number = 0
    while True:
        number += 1
        process = os.fork()
        if process == 0:
            _die_at(number, operation)
        _, status = os.waitpid(process, 0)
        if os.WIFEXITED(status):
            assert os.WEXITSTATUS(status) == 0, "the operation failed by itself"
            return
        assert os.WTERMSIG(status) == signal.SIGKILL
        yield number


def _die_at(number: int, operation: Callable[[], object]) -> None:
    left = number

    def counted(real: Callable[..., object]) -> Callable[..., object]:
        def call(*args: object, **kwargs: object) -> object:
            nonlocal left
            left -= 1
            if not left:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*args, **kwargs)

        return call

    code = 1
    try:
        real_unlink = Path.unlink
        with (
            mock.patch("os.replace", counted(os.replace)),
            mock.patch("os.fsync", counted(os.fsync)),
            mock.patch.object(Path, "unlink", counted(real_unlink)),
        ):
            operation()
        code = 0
    finally:
        os._exit(code)
