"""What a cluster file of this site would say: asked of Slurm, for `init`."""

from __future__ import annotations

import math
import os
import pwd
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.core.console import counted
from pipeline.jobs.gpus import parse_gres
from pipeline.jobs.slurm import records, scheduler
from pipeline.jobs.slurm.records import Record
from pipeline.runs.cluster import GPU_MEMORY_GB, Slurm

MAX_CPUS = 8  # of a job with one GPU; more would wait for nothing
MINUTE = 1 / 60  # hours; the least time that a job can ask for
DEFAULT = Slurm()


@dataclass(frozen=True, kw_only=True)
class Offer:
    """What one partition gives to a job with one GPU, or with one CPU share where it has none."""

    partition: str
    is_default: bool
    gres: str
    """`gpu:a100:1`; empty where it has no GPU."""
    gpus: int
    """In service, of all its nodes."""
    cpus: int
    memory_gb: int
    hours: float
    """Its time limit; that of a cluster file by default where it has none."""
    disk_gb: int
    """The node's own disk for temporary files; 0: Slurm does not say."""

    @property
    def gpu_model(self) -> str:
        """The one of `GPU_MEMORY_GB` that its gres names; empty where none or several could be meant."""
        kind = _plain(self.gres.split(":")[1]) if self.gres.count(":") == 2 else ""
        found = [name for name in GPU_MEMORY_GB if kind and _plain(name.split("-")[0]) == kind]
        return found[0] if len(found) == 1 else ""

    def text(self) -> str:
        """`gpu: gpu:a100:1, 8 CPUs, 60 GB, 48 h`."""
        parts = [self.gres or "no GPU", counted(self.cpus, "CPU"), f"{self.memory_gb} GB", f"{self.hours:g} h"]
        return f"{self.partition}: {', '.join(parts)}"


@dataclass(frozen=True, kw_only=True)
class SiteAnswers:
    """What Slurm says of the site and of this user."""

    offers: Sequence[Offer]
    """Of the partitions that are up; the best for training first."""
    temporary: str
    """The folder of temporary files on a node (TmpFS)."""
    accounting: bool
    accounts: Sequence[str]
    """That this user may use; empty where Slurm does not say."""
    max_jobs: int
    """This user's limit of jobs in the queue; 0 where Slurm names none."""


def ask_site() -> SiteAnswers:
    """Ask Slurm; raises `ValueError` with its words where it does not answer, or has no partition that is up."""
    config = scheduler.config(timeout=records.SECONDS)
    partitions = records.partitions()
    nodes = records.nodes()
    offers = [_offer(partition, nodes) for partition in partitions if partition.get("State", "UP") == "UP"]
    found = sorted(filter(None, offers), key=lambda each: (not each.gres, not each.is_default, -each.gpus, -each.hours))
    if not found:
        raise ValueError("no partition is up, has a node and gives a job a minute")
    accounts, max_jobs = _associations(config)
    return SiteAnswers(
        offers=found,
        temporary=config.get("TmpFS", "/tmp"),
        accounting=_answers("sacct", "--noheader", "--allocations", "--starttime=now-1minutes", "--format=JobID"),
        accounts=accounts,
        max_jobs=max_jobs,
    )


def _offer(partition: Record, nodes: Sequence[Record]) -> Offer | None:
    """What the commonest kind of a partition's nodes gives to a job; None where it has no node, or no whole minute."""
    name = partition.get("PartitionName", "")
    members = [node for node in nodes if name in node.get("Partitions", "").split(",")]
    hours = records.hours_of(partition.get("MaxTime", ""))
    if not members or hours < MINUTE:
        return None
    working = [node for node in members if records.in_service(node)] or members
    kinds = Counter(kind for node in working for kind in _gpus(node))
    kind, count = kinds.most_common(1)[0] if kinds else ("", 0)
    fitting = [node for node in working if not kinds or _gpus(node)[kind]]
    share = min(fitting, key=lambda node: records.megabytes(node) / max(1, sum(_gpus(node).values())))
    parts = max(1, sum(_gpus(share).values()))
    return Offer(
        partition=name,
        is_default=partition.get("Default") == "YES",
        gres=f"gpu:{kind}:1" if kind else "gpu:1" if kinds else "",
        gpus=count,
        cpus=max(1, min(MAX_CPUS, records.cpus(share) // parts)),
        memory_gb=max(1, min(int(DEFAULT.memory_gb), records.megabytes(share) // 1024 // parts)),
        hours=DEFAULT.hours if math.isinf(hours) else hours,
        disk_gb=min(records.number(node.get("TmpDisk")) for node in fitting) // 1024,
    )


def _gpus(node: Record) -> Counter[str]:
    """How many GPUs of which type a node has; the type is empty where Slurm does not say."""
    return Counter({kind: n for (name, kind), n in parse_gres(node.get("Gres", "")).items() if name == "gpu"})


def _answers(*command: str) -> bool:
    try:
        scheduler.ask(*command, timeout=records.SECONDS)
    except ValueError:
        return False
    return True


def _associations(config: Record) -> tuple[list[str], int]:
    """This user's accounts, and the least limit of jobs in the queue; none where Slurm does not say."""
    try:
        user = pwd.getpwuid(os.getuid()).pw_name
        rows = records.associations(config, ("account", "maxsubmitjobs"), f"user={user}")
    except (KeyError, ValueError):  # some sites do not let users ask
        return [], 0
    limits = [int(row["maxsubmitjobs"]) for row in rows if row["maxsubmitjobs"].isdigit()]
    return sorted({row["account"] for row in rows if row["account"]}), min(limits, default=0)


def _plain(name: str) -> str:
    """`Tesla_V100-32GB` as `teslav10032gb`."""
    return re.sub(r"\W|_", "", name).lower()
