"""Starts runs in processes of their own that have imported everything at once: they are forked from one that has.

multiprocessing's server cannot be that one. A process has one of them, and sharding starts it first, for its workers.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from pathlib import Path

ROOT = Path(__file__).parents[2]
IMPORTED = (
    *("pipeline.jobs.execute", "pipeline.learn.pretrain", "pipeline.learn.finetune", "pipeline.learn.metrics"),
    *("pipeline.data.shards.write", "pipeline.study.recipes", "timm"),
    *("sklearn.linear_model", "sklearn.multiclass", "sklearn.neighbors", "sklearn.pipeline", "threadpoolctl"),
    "torch.utils.tensorboard",
)
_lock = threading.Lock()
_server: subprocess.Popen[str] | None = None


def ask(*words: object) -> str:
    """The server's answer; the first question starts it, and it ends with this process."""
    global _server
    with _lock:
        if _server is None:
            path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
            _server = subprocess.Popen(
                [sys.executable, __file__],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env={**os.environ, "PYTHONPATH": path},
            )
            atexit.register(end, _server)
        assert _server.stdin and _server.stdout
        print(*words, file=_server.stdin, flush=True)
        return _server.stdout.readline().strip()


def end(server: subprocess.Popen[str]) -> None:
    with server:
        pass  # closes its input, which ends it


class Process:
    """A process that executes the run in a folder, as `python -m pipeline.jobs.execute` does."""

    def __init__(self, folder: Path) -> None:
        self.pid = int(ask("start", folder))
        self._code: int | None = None

    @property
    def exitcode(self) -> int | None:
        """None while it lives; negative: a signal."""
        if self._code is None and (answer := ask("poll", self.pid)):
            self._code = int(answer)
        return self._code

    def kill(self) -> None:
        if self.exitcode is None:
            os.kill(self.pid, signal.SIGKILL)

    def join(self) -> None:
        while self.exitcode is None:
            time.sleep(0.005)


def serve() -> None:
    """Answer until the one who asks has ended."""
    for name in IMPORTED:
        with contextlib.suppress(ImportError):  # on a bare machine
            importlib.import_module(name)
    for line in sys.stdin:
        word, _, value = line.rstrip("\n").partition(" ")
        if word == "start":
            answer = str(fork(Path(value)))
        else:
            ended, status = os.waitpid(int(value), os.WNOHANG)
            answer = str(os.waitstatus_to_exitcode(status)) if ended else ""
        print(answer, flush=True)


def fork(folder: Path) -> int:
    """The id of a new process that executes the run in a folder."""
    if child := os.fork():
        return child
    code = 70
    try:
        code = execute(folder)
        sys.stdout.flush()
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def execute(folder: Path) -> int:
    from pipeline.jobs import execute
    from pipeline.jobs.signals import Stop
    from pipeline.runs.folder import Run

    run = Run(folder)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    with open(run["log"], "ab") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    with Stop() as asked:
        return execute.execute_run(run, asked)


if __name__ == "__main__":
    serve()
