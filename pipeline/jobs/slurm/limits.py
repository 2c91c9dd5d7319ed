"""Limits that a site sets on a user, an account or a QOS: how many jobs may be queued, and how many run at once.

They are read once for a launch, with sacctmgr, where the site enforces limits and lets users ask. What is counted
against them is asked of the queue whenever jobs are sent.
"""

from __future__ import annotations

import os
import pwd
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.core.console import counted
from pipeline.jobs.gpus import parse_gres
from pipeline.jobs.slurm import records, scheduler
from pipeline.jobs.slurm.records import Record
from pipeline.runs.cluster import Slurm

DEPTH = 8  # accounts above an account
NAMES = {"maxsubmit": "MaxSubmitJobs", "grpsubmit": "GrpSubmitJobs", "maxjobs": "MaxJobs", "grpjobs": "GrpJobs"}
TRES = {"grptres": "GrpTRES", "maxtres": "MaxTRESPerJob", "maxtrespu": "MaxTRESPerUser"}
USER, GROUP = ("maxsubmit", "maxjobs", "maxtres"), ("grpsubmit", "grpjobs", "grptres")
ASSOCIATION = ("account", "user", "partition", "parentname", "defaultqos", *USER, *GROUP, "qos")
QOS = {"maxsubmitpu": "maxsubmit", "maxjobspu": "maxjobs", "maxtrespu": "maxtrespu", "maxtres": "maxtres"}
FULL = "SubmitJob"  # in sbatch's words where one of these limits is reached: AssocMaxSubmitJobLimit, QOSMaxSubmitJob…
UNITS = {"": 1.0, "K": 1 / 1024, "M": 1.0, "G": 1024.0, "T": 1024.0**2}  # of memory, in megabytes


@dataclass(frozen=True)
class Limit:
    """One limit of the site."""

    name: str
    """As Slurm calls it, with what it counts: `MaxSubmitJobs`, `GrpTRES gres/gpu=4`."""
    of: str
    """Whose it is: `user anna in account lab`, `account lab`, `QOS long`."""
    jobs: int
    """How many of our jobs fit at most."""
    queued: bool
    """Whether waiting jobs count, too; else those that run."""
    account: str = ""
    qos: str = ""
    partition: str = ""
    everyone: bool = False
    """Whether other users' jobs count, too."""

    @property
    def kind(self) -> str:
        """What it limits: `MaxSubmitJobs`, `GrpTRES gres/gpu`."""
        return self.name.partition("=")[0]

    def __str__(self) -> str:
        return f"{self.name} of {self.of}"


@dataclass(frozen=True)
class QueuedAs:
    """What a job in the queue is counted by."""

    user: str
    account: str
    qos: str
    partition: str

    def counts_for(self, limit: Limit, me: str) -> bool:
        return (
            (limit.everyone or self.user == me)
            and limit.account in ("", self.account)
            and limit.qos in ("", self.qos)
            and limit.partition in ("", *self.partition.split(","))
        )


def read_limits(slurm: Slurm) -> list[Limit]:
    """The limits that the site enforces on jobs of this cluster file; none where it does not say."""
    if not slurm.accounting:
        return []
    try:
        config = scheduler.config(timeout=records.SECONDS)
        enforced = config.get("AccountingStorageEnforce", "").lower()
        if not {"limits", "safe", "all"} & set(enforced.split(",")):
            return []
        me = pwd.getpwuid(os.getuid()).pw_name
        account = slurm.account or default_account(me)
        partition = _partition(slurm)
        name = partition.get("PartitionName", "")
        rows = records.associations(config, ASSOCIATION, f"account={account}", f"user={me}")
        own = [row for row in rows if row["partition"] == name] or [row for row in rows if not row["partition"]]
        out = [limit for row in own for limit in _of_user(row, me, slurm)]
        out += _of_accounts(account, slurm, config)
        of_job, over = _of_qos(slurm.qos or _default_qos(own), slurm)
        of_partition, _ = _of_qos(partition.get("QoS", "").replace("N/A", ""), slurm, partition=name)
        return _in_force(*((of_job, of_partition) if over else (of_partition, of_job)), out)
    except (KeyError, ValueError):  # some sites do not let users ask; sbatch will tell
        return []


def room(limits: Iterable[Limit], max_jobs: int) -> tuple[int | None, str]:
    """How many more jobs may be sent now, and what says so; None where nothing does.

    max_jobs: the cluster file's own limit of the user's jobs in the queue, 0 for none. The tightest counts.
    """
    found: list[tuple[int, str]] = []
    if max_jobs:
        found.append((max_jobs - scheduler.user_jobs(), f"max_jobs is {max_jobs}"))
    wanted = [limit for limit in limits if limit.queued]
    if wanted:
        me = pwd.getpwuid(os.getuid()).pw_name
        jobs = _queue(everyone=any(limit.everyone for limit in wanted))
        for limit in wanted:
            used = sum(job.counts_for(limit, me) for job in jobs)
            found.append((limit.jobs - used, f"{limit} is {limit.jobs}"))
    return min(found, default=(None, ""), key=lambda pair: pair[0])


def limit_lines(limits: Sequence[Limit], jobs: int, *, max_jobs: int) -> list[str]:
    """When the limits bind a plan of so many jobs, in words; empty where none does."""
    out = []
    left, why = room(limits, max_jobs)
    if left is not None and left < jobs:
        sent = max(0, left)
        rest = "launch --wait sends the others as those end, and so does every later launch"
        out.append(f"{why}: {sent} of {counted(jobs, 'job')} can be sent now; {rest}")
    running = {str(limit): limit.jobs for limit in limits if not limit.queued and 0 < limit.jobs < jobs}
    return out + [f"{name}: {counted(most, 'job runs', 'jobs run')} at once at most" for name, most in running.items()]


def too_large(limits: Iterable[Limit]) -> list[str]:
    """The limits that one job alone exceeds: it would wait for ever, or be refused."""
    return [
        f"{limit} does not allow one job of the table [slurm]; request less there" for limit in limits if not limit.jobs
    ]


def default_account(user: str) -> str:
    """The account that jobs without one are charged to; empty where the user has none."""
    text = scheduler.ask("sacctmgr", "-nP", "show", "user", user, "format=defaultaccount", timeout=records.SECONDS)
    return text.split("\n")[0].split("|")[0].strip()


def partition_notes(slurm: Slurm) -> list[str]:
    """What a person should know of the partition that is no limit; empty where Slurm does not say."""
    try:
        partitions = records.partitions()
    except ValueError:
        return []
    wanted = slurm.partition.split(",") if slurm.partition else []
    return [
        f"partition {name} gives each node to one user at a time (ExclusiveUser): a job waits for a node that is "
        "empty or yours, although the queue may show idle CPUs"
        for partition in partitions
        if (name := partition.get("PartitionName", "")) in wanted or (not wanted and partition.get("Default") == "YES")
        if partition.get("ExclusiveUser") == "YES"
    ]


# --- Reading ---------------------------------------------------------------------------------------------------------


def _in_force(*groups: list[Limit]) -> list[Limit]:
    """Those that hold: a limit of an earlier group counts instead of all later ones of its kind, whichever is tighter.

    Those of one job that it keeps to are left out.
    """
    found: list[Limit] = []
    for group in groups:
        kinds = {limit.kind for limit in found}
        found += [limit for limit in group if limit.kind not in kinds]
    return [limit for limit in found if not (limit.name.startswith(TRES["maxtres"]) and limit.jobs)]


def _of_user(row: Record, me: str, slurm: Slurm) -> list[Limit]:
    of = f"user {me} in account {row['account']}" + (f", partition {row['partition']}" if row["partition"] else "")
    whose = {"of": of, "account": row["account"], "partition": row["partition"]}
    return _limits({name: row[name] for name in (*USER, *GROUP)}, slurm, **whose)


def _of_accounts(account: str, slurm: Slurm, config: Record) -> list[Limit]:
    """Those of the account and of the accounts above it, which all their users share.

    Of those above, only the jobs of this account are counted: whoever is told of too many by sbatch sends fewer.
    """
    out: list[Limit] = []
    above = account
    for _ in range(DEPTH):
        found = records.associations(config, ASSOCIATION, f"account={above}") if above else []
        rows = [row for row in found if not row["user"]]
        if not rows:
            break
        group = {name: rows[0][name] for name in GROUP}
        out += _limits(group, slurm, of=f"account {above}", account=account, everyone=True)
        above = rows[0]["parentname"]
    return out


def _default_qos(own: Sequence[Record]) -> str:
    """What QOS Slurm gives to a job that names none: the user's default, else the only one that the user may use."""
    if named := [row["defaultqos"] for row in own if row["defaultqos"]]:
        return named[0]
    allowed = {name for row in own for name in row["qos"].split(",") if name}
    return allowed.pop() if len(allowed) == 1 else ""


def _partition(slurm: Slurm) -> Record:
    """The partition that jobs go to, the first of several; else the site's default one."""
    wanted = slurm.partition.split(",")[0]
    for one in records.partitions():
        if one.get("PartitionName") == wanted or (not wanted and one.get("Default") == "YES"):
            return one
    return {"PartitionName": wanted}


def _of_qos(name: str, slurm: Slurm, partition: str = "") -> tuple[list[Limit], bool]:
    """Those of a QOS: of jobs that ask for it or, where it is a partition's, of all jobs there; and whether its limits
    count instead of those of the partition's QOS (its flag OverPartQOS)."""
    whose = {"of": f"QOS {name}", "qos": name}
    if partition:
        whose = {"of": f"partition {partition} (QOS {name})", "partition": partition}
    out: list[Limit] = []
    over = False
    for row in records.accounted((*QOS, *GROUP, "flags"), "qos", f"name={name}") if name else []:
        over = "overpartqos" in row["flags"].lower().split(",")
        out += _limits({key: row[column] for column, key in QOS.items()}, slurm, **whose)
        out += _limits({key: row[key] for key in GROUP}, slurm, everyone=True, **whose)
    return out, over


def _limits(values: Mapping[str, str], slurm: Slurm, **whose: Any) -> list[Limit]:
    out = []
    for key, value in values.items():
        if key in NAMES and value.isdigit():
            out.append(Limit(NAMES[key], jobs=int(value), queued="submit" in key, **whose))
        elif key in TRES:
            for name, most, jobs in _tres(value, slurm):
                out.append(Limit(f"{TRES[key]} {name}={most}", jobs=jobs, queued=False, **whose))
    return out


def _tres(text: str, slurm: Slurm) -> list[tuple[str, str, int]]:
    """The parts of `cpu=64,mem=1T,gres/gpu=4`, each with how many jobs of this cluster file fit into it."""
    takes: Counter[str] = Counter({"cpu": float(slurm.cpus), "node": 1.0, "mem": slurm.memory_gb * 1024})
    for (name, kind), count in parse_gres(slurm.gres).items():
        takes.update({f"gres/{name}": count, **({f"gres/{name}:{kind}": count} if kind else {})})
    out = []
    for part in text.split(","):
        name, _, most = part.partition("=")
        found = re.fullmatch(r"(\d+(?:\.\d+)?)([KMGT]?)", most)
        if found and takes[name]:
            out.append((name, most, int(float(found[1]) * UNITS[found[2]] // takes[name])))
    return out


def _queue(*, everyone: bool) -> list[QueuedAs]:
    """The jobs in the queue, array tasks one by one; of all users where the site shows them."""
    only = () if everyone else ("-u", scheduler.ME)
    text = scheduler.ask("squeue", "-h", "-r", *only, "-o", "%u|%a|%q|%P")
    return [QueuedAs(*parts) for line in text.splitlines() if len(parts := line.split("|")) == 4]
