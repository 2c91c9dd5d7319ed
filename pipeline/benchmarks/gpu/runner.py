"""Steps one after another, each within its time; a second call does what has no result yet."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable

import torch

from pipeline.benchmarks.gpu import machine, page
from pipeline.benchmarks.gpu.programme import Programme
from pipeline.benchmarks.gpu.steps import STEPS, current, to_json
from pipeline.core import files
from pipeline.core.console import counted

GRACE = 90.0  # seconds from the request to stop to the kill: a checkpoint is written


def run_programme(programme: Programme, say: Callable[[str], None]) -> int:
    """Do every step; returns how many parts have no result. The page and the JSON are written after each part.

    Raises `ValueError` where there is no GPU, or results of another one.
    """
    if not programme.quick and not torch.cuda.is_available():
        raise ValueError("torch sees no GPU here; check the driver, or rehearse on the CPU: make gpu REHEARSE=1")
    programme.scratch.mkdir(parents=True, exist_ok=True)
    with files.lock(programme.out / "lock"):
        check_machine(programme)
        environment = dict(os.environ)
        paths = [str(path) for path in (machine.take_wheels(programme), environment.get("PYTHONPATH")) if path]
        environment["PYTHONPATH"] = os.pathsep.join([str(page.ROOT), *paths])
        left = 0
        for number, name in enumerate(STEPS, 1):
            say(f"step {number} of {len(STEPS)}: {STEPS[name].TITLE}")
            missing = run_step(name, programme, environment, say)
            left += missing
            if missing:
                say(f"  {counted(missing, 'part has', 'parts have')} no result yet; the same command continues")
            page.write(programme)
    return left


def check_machine(programme: Programme) -> None:
    """Forget the facts of an earlier call, and refuse to mix results of two GPUs."""
    facts = programme.found("machine", "facts")
    here = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    if facts and facts["gpu"] != here:
        raise ValueError(f"{programme.out} has results of {facts['gpu']}, and this is {here}; give another --out")
    programme.path("machine", "facts").unlink(missing_ok=True)


def run_step(name: str, programme: Programme, environment: dict[str, str], say: Callable[[str], None]) -> int:
    """Do a step's parts in processes of their own until its time is over; returns how many have no result."""
    step = STEPS[name]
    parts = step.parts(programme)
    minutes = step.MINUTES or programme.minutes
    deadline = time.monotonic() + 60 * minutes
    tried: set[str] = set()
    while todo := [part for part in parts if part not in tried and not programme.is_done(name, part)]:
        command = [sys.executable, "-m", "pipeline.benchmarks.gpu.worker", str(os.getpid()), name, to_json(programme)]
        process = subprocess.Popen([*command, *todo], env=environment, start_new_session=True)
        code = wait(process, deadline)
        if code is None:
            say(f"  the {minutes:g} minutes of this step are over")
            break
        if code == 0:
            break
        at = current(programme, name)
        part = at.read_text() if at.exists() else todo[0]
        tried.update(todo[: todo.index(part) + 1])
        if programme.found(name, part) is None:
            programme.write(name, part, {"error": f"its process ended with code {code}"})
    return sum(not programme.is_done(name, part) for part in parts)


def wait(process: subprocess.Popen[bytes], deadline: float) -> int | None:
    """The exit code of a process; None if it was stopped because its time was over."""
    try:
        return process.wait(max(0.0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(GRACE)
        return None
    finally:
        with contextlib.suppress(ProcessLookupError):  # what it started, too
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
