"""What Slurm's tools say of a site, as values: its partitions and nodes, limits, generic resources."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence

from pipeline.jobs.slurm import scheduler

SECONDS = 20.0  # for one answer of Slurm
OUT_OF_SERVICE = ("DOWN", "DRAIN", "DRAINED", "DRAINING", "FAIL", "FAILING", "FUTURE", "ERROR")

Record = Mapping[str, str]
"""A partition, node or configuration as `scontrol` shows it, by key; or a row of accounting, by column."""


def shown(*command: str) -> list[Record]:
    """The lines of `scontrol --oneliner`. If a key comes twice (in free text, which comes last), the first counts."""
    out: list[Record] = []
    for line in scheduler.ask(*command, timeout=SECONDS).splitlines():
        if "Name=" in line:
            record = dict(reversed(re.findall(r"(\w+)=(\S*)", line)))
            out.append(record | {"Reason": line.partition(" Reason=")[2].partition(" [")[0]})
    return out


def partitions() -> list[Record]:
    return shown("scontrol", "--all", "--oneliner", "show", "partition")


def nodes() -> list[Record]:
    return shown("scontrol", "--all", "--oneliner", "show", "node")


def accounted(columns: Sequence[str], *what: str) -> list[Record]:
    """The rows of `sacctmgr show`, by column."""
    text = scheduler.ask("sacctmgr", "-nP", "show", *what, f"format={','.join(columns)}", timeout=SECONDS)
    lines = (line.split("|") for line in text.splitlines())
    return [dict(zip(columns, line, strict=True)) for line in lines if len(line) == len(columns)]


def associations(config: Record, columns: Sequence[str], *where: str) -> list[Record]:
    """The associations of users, accounts and partitions; where: `user=anna`, `account=lab`.

    Accounting may be that of several clusters, with associations in each: `config` says which one this is.
    """
    here = config.get("ClusterName", "")
    return accounted(columns, "assoc", *([f"cluster={here}"] if here else []), *where)


def hours_of(limit: str) -> float:
    """The hours of a time limit as Slurm prints it: `7-00:00:00`, `02:30:00`, `UNLIMITED`."""
    match = re.fullmatch(r"(?:(\d+)-)?(\d+):(\d+):(\d+)", limit)
    if match is None:
        return math.inf
    days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return days * 24 + hours + minutes / 60 + seconds / 3600


def cpus(node: Record) -> int:
    """The CPUs that a node gives to jobs."""
    return number(node.get("CPUEfctv") or node.get("CPUTot"))


def number(text: str | None) -> int:
    """A whole number; 0 where there is none."""
    return int(text) if text and text.isdigit() else 0


def megabytes(node: Record) -> int:
    """The memory that a node gives to jobs."""
    return number(node.get("RealMemory")) - number(node.get("MemSpecLimit"))


def in_service(node: Record) -> bool:
    """`IDLE+CLOUD+POWERED_DOWN` is in service, `DOWN*` and `MIXED+DRAIN` are not."""
    states = {re.sub(r"\W", "", state) for state in node.get("State", "").split("+")}
    return not states & set(OUT_OF_SERVICE)
