"""Run a command inside the test process: starting a process that imports torch takes longer than the command."""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.core.console import FAULT, run_command


def command(name: str, *arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    """The output and the exit code of `python -m pipeline.NAME ARGUMENTS`, run in the folder `cwd`."""
    out, err = io.StringIO(), io.StringIO()
    main = importlib.import_module(f"pipeline.{name}").main
    with _arguments_and_folder(name, arguments, cwd), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        with pytest.raises(SystemExit) as ended:
            run_command(main)
    assert ended.value.code != FAULT, Path(
        err.getvalue().split("the traceback is in ")[1].split(": check")[0]
    ).read_text()
    return subprocess.CompletedProcess([name], int(ended.value.code or 0), out.getvalue(), err.getvalue())


@contextlib.contextmanager
def _arguments_and_folder(name: str, arguments: tuple[object, ...], cwd: Path) -> Iterator[None]:
    before = sys.argv, Path.cwd()
    try:
        sys.argv = [name, *map(str, arguments)]
        os.chdir(cwd)
        yield
    finally:
        sys.argv = before[0]
        os.chdir(before[1])
