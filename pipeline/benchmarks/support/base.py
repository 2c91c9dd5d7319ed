"""What benchmarks share: ways that are measured in turn, round after round, and the tables of their medians.

A plugin has `TITLE` (one line) and `run(bench) -> list[Table]`. Ways take turns, so a machine that slows down slows
all of them; no number is a pass or a fail.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

ROLES = ("ours", "peer", "limit")


@dataclass(frozen=True, kw_only=True)
class Bench:
    """What a benchmark is given."""

    scratch: Path
    """A folder for its files, kept between runs: enlarged images, shards, peers' outputs."""
    raw: Path | None
    """Real images (`isic2019` and `brain_mri` lie in it), or None: drawn ones, and the notes say so."""
    peers: Path | None
    """The interpreter of an environment that holds the peers, or None: they are left out, and the notes say so."""
    rounds: int
    """How often each way is measured."""
    quick: bool
    """Whether to show that it works rather than to measure: few images, small networks."""
    say: Callable[[str], None] = print
    """Progress, a line at a time."""


@dataclass(frozen=True, kw_only=True)
class Way:
    """One way of doing what a table compares."""

    name: str
    once: Callable[[], float]
    """Measures once: what a table's unit counts (images a second, seconds, bytes)."""
    role: str = "ours"
    """`ours`, `peer` or `limit` (what the machine allows, measured in the same run)."""

    def __post_init__(self) -> None:
        assert self.role in ROLES, self.role


@dataclass(kw_only=True)
class Row:
    """The measurements of one way."""

    name: str
    role: str
    values: list[float]

    @property
    def median(self) -> float:
        return statistics.median(self.values)


@dataclass(kw_only=True)
class Table:
    """Ways of doing the same, and how many times better the first of ours is than each of them."""

    title: str
    unit: str
    rows: list[Row]
    more_is_better: bool = True
    notes: list[str] = field(default_factory=list)

    def ratio(self, row: Row) -> float | None:
        """How many times better ours (the first row) is than `row`; None for itself and where there is no telling."""
        ours = self.rows[0]
        if row is ours or not row.median or not ours.median:
            return None
        return ours.median / row.median if self.more_is_better else row.median / ours.median

    def to_json(self) -> dict[str, Any]:
        value = asdict(self)
        for row, of in zip(self.rows, value["rows"], strict=True):
            of |= {"median": row.median, "ours_over_this": self.ratio(row)}
        return value


def compare(
    title: str, unit: str, ways: Sequence[Way], bench: Bench, *, more_is_better: bool = True, notes: Sequence[str] = ()
) -> Table:
    """Measure the ways in turn, `bench.rounds` times each; the first is the one the others are compared with."""
    rows = [Row(name=way.name, role=way.role, values=[]) for way in ways]
    for number in range(bench.rounds):
        for way, row in zip(ways, rows, strict=True):
            bench.say(f"round {number + 1} of {bench.rounds}: {way.name}")
            row.values.append(way.once())
    return Table(title=title, unit=unit, rows=rows, more_is_better=more_is_better, notes=list(notes))


def memory(pid: int, *kinds: str) -> int:
    """Bytes that a process holds, what it shares being divided among its sharers; 0 when it is gone.

    `kinds` are those of /proc/PID/smaps_rollup: `Pss` is all, `Pss_Anon` and `Pss_Shmem` leave the page cache out.
    """
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return sum(1024 * int(line.split()[1]) for line in lines if line.split(":")[0] in kinds)


def rate(count: float, work: Callable[[], object]) -> float:
    """How many of `count` a second, timed around one call of `work`."""
    started = time.perf_counter()
    work()
    return count / (time.perf_counter() - started)


def seconds(work: Callable[[], object]) -> float:
    """The seconds one call of `work` takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started
