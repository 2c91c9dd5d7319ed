"""Measure the cases of a table in turn, round after round.

Because the cases take turns, a machine that becomes slower slows all of them down. No number is a pass or a fail.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import subprocess
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.benchmarks.support.tables import ROLES, Row, Table

PR_SET_CHILD_SUBREAPER = 36  # of Linux


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a benchmark is given."""

    scratch: Path
    """A folder for its files, kept between runs: enlarged images, shards, outputs of peers."""
    raw: Path | None
    """A folder with real images (`isic2019` is in it); None: images are drawn, and the notes say so."""
    peers: Path | None
    """The Python interpreter of an environment with the peers; None: they are left out, and the notes say so."""
    rounds: int
    """How often each case is measured."""
    quick: bool
    """Whether to show that the benchmark works instead of measuring: few images, small networks."""
    say: Callable[[str], None] = print
    """Prints progress, one line per call."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """One of the things that a table compares."""

    name: str
    measure: Callable[[], float]
    """Measures once; returns a value in the table's unit (images/s, seconds, MB)."""
    role: str = "ours"
    """`ours`, `peer` or `limit` (what the machine allows, measured in the same run)."""

    def __post_init__(self) -> None:
        assert self.role in ROLES, self.role


def compare(
    title: str,
    unit: str,
    cases: Sequence[Case],
    settings: Settings,
    *,
    more_is_better: bool = True,
    notes: Sequence[str] = (),
) -> Table:
    """Measure the cases in turn, `settings.rounds` times each; the others are compared with the first."""
    rows = [Row(name=case.name, role=case.role, values=[]) for case in cases]
    for number in range(settings.rounds):
        for case, row in zip(cases, rows, strict=True):
            settings.say(f"round {number + 1} of {settings.rounds}: {case.name}")
            row.values.append(case.measure())
    return Table(title=title, unit=unit, rows=rows, more_is_better=more_is_better, notes=list(notes))


def rate(count: float, work: Callable[[], object]) -> float:
    """Units a second: `count` over the time that one call of `work` takes."""
    return count / seconds(work)


def seconds(work: Callable[[], object]) -> float:
    """The seconds that one call of `work` takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def processor_seconds(work: Callable[[], object]) -> float:
    """The seconds of processor time that one call of `work` takes, with all processes that it starts.

    On a machine that is shared they say more than those of the clock. It is called in a forked process, which waits for
    those that others leave behind, such as servers of workers.
    """
    receiver, sender = os.pipe()
    process = os.fork()
    if not process:
        status = 1
        try:
            ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
            work()
            with contextlib.suppress(ChildProcessError):
                while True:
                    os.waitpid(-1, 0)
            used = os.times()
            os.write(sender, repr(used.user + used.system + used.children_user + used.children_system).encode())
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    os.close(sender)
    with open(receiver) as file:
        text = file.read()
    _, status = os.waitpid(process, 0)
    if status:
        raise RuntimeError("what was to be measured failed; its traceback is above")
    return float(text)


def memory_bytes(pid: int, *kinds: str) -> int:
    """The memory of a process in bytes; shared memory is divided among its sharers. 0 when the process has ended.

    `kinds` are those of /proc/PID/smaps_rollup: `Pss` is all memory, `Pss_Anon` and `Pss_Shmem` exclude the page cache.
    """
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return sum(1024 * int(line.split()[1]) for line in lines if line.split(":")[0] in kinds)


def peak_memory(command: list[str | Path]) -> float:
    """The peak memory of a command and its children, in MiB."""
    peak = 0.0
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        while process.poll() is None:
            pids = (process.pid, *_children(process.pid))
            peak = max(peak, sum(memory_bytes(pid, "Pss") for pid in pids) / 2**20)
            time.sleep(0.05)
    assert process.returncode == 0
    return peak


def _children(pid: int) -> list[int]:
    """The children of a process and their children; none if the process has ended."""
    children: list[int] = []
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            children += map(int, path.read_text().split())
    return children + [below for child in children for below in _children(child)]
