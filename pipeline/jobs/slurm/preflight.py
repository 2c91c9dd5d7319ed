"""What a Slurm site must offer before anything is submitted to it: one line for each thing that it does not.

Slurm is asked a dozen times at most. Otherwise it would often answer only hours later, by a job that pends for ever or
dies at its start.
"""

from __future__ import annotations

import math
import os
import pwd
import re
import shutil
import socket
from collections import Counter
from collections.abc import Iterable

from pipeline.jobs.gpus import parse_gres
from pipeline.jobs.slurm import limits, records, scheduler
from pipeline.runs.cluster import Slurm

TOOLS = ("sbatch", "squeue", "scontrol", "srun")
MAX_SHOWN = 5  # kinds of nodes in a message


def slurm_problems(slurm: Slurm) -> tuple[list[str], list[records.Record]]:
    """What the site does not offer of the table [slurm], and the nodes of its partition."""
    if missing := [tool for tool in TOOLS if shutil.which(tool) is None]:
        return [f"not on PATH: {', '.join(missing)}; run this on a login node, or load the site's Slurm module"], []
    try:
        config = scheduler.config(timeout=records.SECONDS)
        partitions = records.partitions()
        nodes = records.nodes()
    except ValueError as error:
        return [f"Slurm does not answer: {error}"], []
    out = _accounting_problems(slurm, config) + limits.too_large(limits.read_limits(slurm))
    chosen, problems = _partitions(slurm, partitions)
    names = {partition["PartitionName"] for partition in chosen}
    members = [node for node in nodes if names & set(node.get("Partitions", "").split(","))]
    if chosen:
        problems += _unfit_nodes(slurm, members, ",".join(sorted(names)))
    return problems + out, members


def _partitions(slurm: Slurm, partitions: Iterable[records.Record]) -> tuple[list[records.Record], list[str]]:
    """The partitions that a job may run in, and what is wrong with them."""
    known = {partition["PartitionName"]: partition for partition in partitions if "PartitionName" in partition}
    listed = ", ".join(known) or "none"
    wanted = [name for name in slurm.partition.split(",") if name]
    wanted = wanted or [name for name, partition in known.items() if partition.get("Default") == "YES"]
    if not wanted:
        return [], [f"the site has no default partition; name one as slurm.partition, of: {listed}"]
    chosen, out = [], []
    for name in wanted:
        partition = known.get(name)
        if partition is None:
            out.append(f"there is no partition {name!r}; name another as slurm.partition, of: {listed}")
            continue
        chosen.append(partition)
        if (state := partition.get("State", "UP")) != "UP":
            out.append(f"partition {name} is {state}; wait until it is UP, or name another, of: {listed}")
        if (limit := records.hours_of(partition.get("MaxTime", ""))) < slurm.hours:
            out.append(f"slurm.hours is {slurm.hours:g}, partition {name} allows {limit:g}; make it {limit:g} or less")
        for what, value in (("Accounts", slurm.account), ("Qos", slurm.qos)):
            allowed = partition.get(f"Allow{what}", "ALL")
            if value and allowed != "ALL" and value not in allowed.split(","):
                out.append(f"partition {name} does not admit {value!r}; it admits {allowed}")
    return chosen, out


def _unfit_nodes(slurm: Slurm, nodes: list[records.Record], partition: str) -> list[str]:
    """Why no node of the partition can take the job; empty when one can."""
    fitting = [node for node in nodes if all(_offers(slurm, node).values())]
    if any(records.in_service(node) for node in fitting):
        return []
    if fitting:
        states = ", ".join(
            f"{node['NodeName']} is {node.get('State', '?')}" + (f": {why}" if (why := node.get("Reason")) else "")
            for node in fitting[:MAX_SHOWN]
        )
        return [f"the nodes of {partition} that fit are out of service ({states}); wait, or ask the site"]
    requests = list(_offers(slurm, {}))
    lacking = [request for request in requests if not any(_offers(slurm, node)[request] for node in nodes)]
    shown = " nor ".join(lacking) or "all at once: " + ", ".join(requests)
    kinds = Counter(_described(node) for node in nodes).most_common(MAX_SHOWN)
    offer = "; ".join(f"{count} × {kind}" for kind, count in kinds) or "no nodes at all"
    return [f"no node of partition {partition} meets {shown}; change the table [slurm]. It has: {offer}"]


def _offers(slurm: Slurm, node: records.Record) -> dict[str, bool]:
    """Each thing that a job requests, with its key, and whether the node has it."""
    out = {
        f"cpus = {slurm.cpus}": records.cpus(node) >= slurm.cpus,
        f"memory_gb = {slurm.memory_gb:g}": records.megabytes(node) >= round(slurm.memory_gb * 1024),
    }
    if slurm.gres:
        out[f'gres = "{slurm.gres}"'] = _has_gres(slurm.gres, node.get("Gres", ""))
    if slurm.constraint:
        features = node.get("AvailableFeatures", "").split(",")
        out[f'constraint = "{slurm.constraint}"'] = _has_features(slurm.constraint, features)
    return out


def _has_gres(wanted: str, offered: str) -> bool:
    have = parse_gres(offered)
    for (name, kind), count in parse_gres(wanted).items():
        if sum(n for (other, its), n in have.items() if other == name and kind in ("", its)) < count:
            return False
    return True


def _has_features(constraint: str, features: list[str]) -> bool:
    """Whether a node fits a plain constraint, read from left to right; Slurm itself judges one with ( [ * or !."""
    if re.search(r"[^\w.:+=&|,-]", constraint):
        return True
    fits, operator = True, "&"
    for part in re.split(r"([&|,])", constraint):
        if part in ("&", "|", ","):
            operator = part
        elif operator == "|":
            fits = fits or part in features
        else:
            fits = fits and part in features
    return fits


def _described(node: records.Record) -> str:
    """`gpu:rtx8000:1, 2 CPUs, 58.5 GB`."""
    features = node.get("AvailableFeatures", "(null)")
    gigabytes = (
        math.floor(records.number(node.get("RealMemory")) / 102.4) / 10
    )  # rounded down: never more than there is
    return ", ".join(
        [
            re.sub(r"\([^)]*\)", "", node.get("Gres", "")) or "no gres",
            f"{records.cpus(node)} CPUs",
            f"{gigabytes:g} GB",
            *([f"features {features}"] if features != "(null)" else []),
        ]
    )


def is_this_machine(node: records.Record) -> bool:
    return node.get("NodeHostName", "").split(".")[0] == socket.gethostname().split(".")[0]


def _accounting_problems(slurm: Slurm, config: records.Record) -> list[str]:
    """Whether accounting answers where the cluster file says so, and knows this user's account and qos."""
    if not slurm.accounting:
        return []
    try:
        scheduler.ask(
            "sacct",
            "--noheader",
            "--allocations",
            "--starttime=now-1minutes",
            "--format=JobID",
            timeout=records.SECONDS,
        )
    except ValueError as error:
        kind = config.get("AccountingStorageType", "unknown")
        return [
            f"accounting does not answer ({error}; AccountingStorageType is {kind}); "
            "set slurm.accounting = false to work with squeue alone"
        ]
    try:
        user = pwd.getpwuid(os.getuid()).pw_name
        rows = records.associations(config, ("account", "partition", "qos"), f"user={user}")
    except (KeyError, ValueError):  # some sites do not let users ask; sbatch will tell
        return []
    enforced = config.get("AccountingStorageEnforce", "none") not in ("none", "(null)", "")
    if not rows:
        return [f"Slurm's accounting does not know user {user}; ask the site for an account"] if enforced else []
    partitions = ("", *slurm.partition.split(","))
    rows = [row for row in rows if row["partition"] in partitions] or rows
    accounts = sorted({row["account"] for row in rows})
    if enforced and not slurm.account and not limits.default_account(user):
        return [f"user {user} has no default account; name one as slurm.account, of: {', '.join(accounts)}"]
    if slurm.account and slurm.account not in accounts:
        return [f"slurm.account is {slurm.account!r}; user {user} may use: {', '.join(accounts)}"]
    own = [row for row in rows if slurm.account in ("", row["account"])]
    qos = sorted({name for row in own for name in row["qos"].split(",")})
    if slurm.qos and any(qos) and slurm.qos not in qos:
        return [f"slurm.qos is {slurm.qos!r}; user {user} may use: {', '.join(name for name in qos if name)}"]
    return []
