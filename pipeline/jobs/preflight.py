"""What a site must offer before anything is sent to it: one line for each thing it does not.

Slurm is asked five times at the most. What is asked of it here it would often answer only hours later, by a job that
pends for ever or dies at its start.
"""

from __future__ import annotations

import contextlib
import math
import os
import pwd
import re
import shutil
import socket
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

from pipeline.core import files
from pipeline.jobs import plan as plans
from pipeline.jobs.estimate import estimate, gigabytes
from pipeline.jobs.plan import Plan
from pipeline.jobs.slurm import scheduler
from pipeline.runs.cluster import Cluster, Slurm

SECONDS = 20.0  # for one answer of Slurm
TOOLS = ("sbatch", "squeue", "scontrol", "srun")
OUT_OF_SERVICE = ("DOWN", "DRAIN", "DRAINED", "DRAINING", "FAIL", "FAILING", "FUTURE", "ERROR")
MOUNTS = Path("/proc/self/mounts")
LOCAL_DISKS = ("ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "f2fs", "tmpfs", "ramfs", "rootfs", "overlay")
SHOWN = 5  # kinds of nodes in a message

Record = Mapping[str, str]


def unmet(cluster: Cluster, plan: Plan | None = None) -> list[str]:
    """What keeps this cluster file, and the plan, from being launched: what, which value, the next move."""
    out = []
    if cluster.executor == "slurm":
        found, nodes = _slurm(cluster.slurm)
        out += found
        here = bool(nodes) and all(_is_here(node) for node in nodes)
        if not cluster.slurm.shared_disks and not here:
            out += _local_disks({name: getattr(cluster, name) for name in ("runs", "shards", "weights")})
    out += _unusable(Path(cluster.runs))
    if plan is not None:
        out += _full(Path(cluster.runs), plan, cluster)
        out += [f"shards are missing; make them: {command}" for command in plan.missing_shards]
        out += plans.missing_weights(plan)
    return out


# --- Slurm -----------------------------------------------------------------------------------------------------------


def _slurm(slurm: Slurm) -> tuple[list[str], list[Record]]:
    """What of the table [slurm] is not met, and the nodes of its partition."""
    if missing := [tool for tool in TOOLS if shutil.which(tool) is None]:
        return [f"not on PATH: {', '.join(missing)}; run this on a login node, or load the site's Slurm module"], []
    try:
        config = scheduler.config(timeout=SECONDS)
        partitions = _records("scontrol", "--all", "--oneliner", "show", "partition")
        nodes = _records("scontrol", "--all", "--oneliner", "show", "node")
    except ValueError as error:
        return [f"Slurm does not answer: {error}"], []
    out = _accounting(slurm, config)
    chosen, problems = _partitions(slurm, partitions)
    names = {partition["PartitionName"] for partition in chosen}
    members = [node for node in nodes if names & set(node.get("Partitions", "").split(","))]
    if chosen:
        problems += _misfit(slurm, members, ",".join(sorted(names)))
    return problems + out, members


def _records(*command: str) -> list[Record]:
    """The lines of `scontrol --oneliner`; of a key that comes twice (in free text, which comes last) the first."""
    out: list[Record] = []
    for line in scheduler.ask(*command, timeout=SECONDS).splitlines():
        if "Name=" in line:
            record = dict(reversed(re.findall(r"(\w+)=(\S*)", line)))
            out.append(record | {"Reason": line.partition(" Reason=")[2].partition(" [")[0]})
    return out


def _partitions(slurm: Slurm, partitions: Iterable[Record]) -> tuple[list[Record], list[str]]:
    """The partitions a job may run in, and what is wrong with them."""
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
        if (most := _hours(partition.get("MaxTime", ""))) < slurm.hours:
            out.append(f"slurm.hours is {slurm.hours:g}, partition {name} allows {most:g}; make it {most:g} or less")
        for what, value in (("Accounts", slurm.account), ("Qos", slurm.qos)):
            allowed = partition.get(f"Allow{what}", "ALL")
            if value and allowed != "ALL" and value not in allowed.split(","):
                out.append(f"partition {name} does not admit {value!r}; it admits {allowed}")
    return chosen, out


def _hours(limit: str) -> float:
    """A time limit as Slurm prints it: `7-00:00:00`, `02:30:00`, `UNLIMITED`."""
    match = re.fullmatch(r"(?:(\d+)-)?(\d+):(\d+):(\d+)", limit)
    if match is None:
        return math.inf
    days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return days * 24 + hours + minutes / 60 + seconds / 3600


def _misfit(slurm: Slurm, nodes: list[Record], partition: str) -> list[str]:
    """Why no node of the partition can take the job; empty when one can."""
    fitting = [node for node in nodes if all(_offers(slurm, node).values())]
    if any(_in_service(node) for node in fitting):
        return []
    if fitting:
        states = ", ".join(
            f"{node['NodeName']} is {node.get('State', '?')}" + (f": {why}" if (why := node.get("Reason")) else "")
            for node in fitting[:SHOWN]
        )
        return [f"the nodes of {partition} that fit are out of service ({states}); wait, or ask the site"]
    lacking = [wish for wish in _offers(slurm, {}) if not any(_offers(slurm, node)[wish] for node in nodes)]
    wishes = " nor ".join(lacking) or "all at once: " + ", ".join(_offers(slurm, {}))
    kinds = Counter(_described(node) for node in nodes).most_common(SHOWN)
    offer = "; ".join(f"{count} × {kind}" for kind, count in kinds) or "no nodes at all"
    return [f"no node of partition {partition} meets {wishes}; change the table [slurm]. It has: {offer}"]


def _offers(slurm: Slurm, node: Record) -> dict[str, bool]:
    """Each thing a job asks for, by the key that asks, and whether the node has it."""
    megabytes = _number(node.get("RealMemory")) - _number(node.get("MemSpecLimit"))
    out = {
        f"cpus = {slurm.cpus}": _cpus(node) >= slurm.cpus,
        f"memory_gb = {slurm.memory_gb:g}": megabytes >= round(slurm.memory_gb * 1024),
    }
    if slurm.gres:
        out[f'gres = "{slurm.gres}"'] = _has_gres(slurm.gres, node.get("Gres", ""))
    if slurm.constraint:
        features = node.get("AvailableFeatures", "").split(",")
        out[f'constraint = "{slurm.constraint}"'] = _has_features(slurm.constraint, features)
    return out


def _cpus(node: Record) -> int:
    return _number(node.get("CPUEfctv") or node.get("CPUTot"))


def _number(text: str | None) -> int:
    return int(text) if text and text.isdigit() else 0


def _has_gres(wanted: str, offered: str) -> bool:
    have = _gres(offered)
    for (name, kind), count in _gres(wanted).items():
        if sum(n for (other, its), n in have.items() if other == name and kind in ("", its)) < count:
            return False
    return True


def _gres(text: str) -> Counter[tuple[str, str]]:
    """Counts by (name, type) of `gpu:a100:4(S:0-1),mps:400`; without a type it is empty, without a count 1."""
    out: Counter[tuple[str, str]] = Counter()
    for entry in re.sub(r"\([^)]*\)", "", text).split(","):
        name, *rest = entry.strip().removeprefix("gres/").replace("=", ":").split(":")
        rest = [part for part in rest if part != "no_consume"]
        count = int(rest.pop()) if rest and rest[-1].isdigit() else 1
        if name:
            out[name, rest[0] if rest else ""] += count
    return out


def _has_features(constraint: str, features: list[str]) -> bool:
    """Whether a node fits a plain constraint, read from left to right; one with ( [ * or ! is Slurm's to judge."""
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


def _in_service(node: Record) -> bool:
    """`IDLE+CLOUD+POWERED_DOWN` is, `DOWN*` and `MIXED+DRAIN` are not."""
    states = {re.sub(r"\W", "", state) for state in node.get("State", "").split("+")}
    return not states & set(OUT_OF_SERVICE)


def _described(node: Record) -> str:
    """`gpu:rtx8000:1, 2 CPUs, 58.5 GB`."""
    features = node.get("AvailableFeatures", "(null)")
    gigabytes = math.floor(_number(node.get("RealMemory")) / 102.4) / 10  # never more than there is
    return ", ".join(
        [
            re.sub(r"\([^)]*\)", "", node.get("Gres", "")) or "no gres",
            f"{_cpus(node)} CPUs",
            f"{gigabytes:g} GB",
            *([f"features {features}"] if features != "(null)" else []),
        ]
    )


def _is_here(node: Record) -> bool:
    return node.get("NodeHostName", "").split(".")[0] == socket.gethostname().split(".")[0]


def _accounting(slurm: Slurm, config: Record) -> list[str]:
    """Whether accounting answers where it should, and knows this user's account and qos."""
    if not slurm.accounting:
        return []
    try:
        scheduler.ask(
            "sacct", "--noheader", "--allocations", "--starttime=now-1minutes", "--format=JobID", timeout=SECONDS
        )
    except ValueError as error:
        kind = config.get("AccountingStorageType", "unknown")
        return [
            f"accounting does not answer ({error}; AccountingStorageType is {kind}); "
            "set slurm.accounting = false to go on with squeue alone"
        ]
    try:
        user = pwd.getpwuid(os.getuid()).pw_name
        columns = "format=account,partition,qos"
        text = scheduler.ask("sacctmgr", "-nP", "show", "assoc", f"user={user}", columns, timeout=SECONDS)
    except (KeyError, ValueError):  # not every site lets its users ask; sbatch will say
        return []
    rows = [row for row in (line.split("|") for line in text.splitlines()) if len(row) == 3]
    if not rows:
        enforced = config.get("AccountingStorageEnforce", "none") not in ("none", "(null)", "")
        return [f"Slurm's accounting does not know user {user}; ask the site for an account"] if enforced else []
    partitions = ("", *slurm.partition.split(","))
    rows = [row for row in rows if row[1] in partitions] or rows
    accounts = sorted({account for account, _, _ in rows})
    if slurm.account and slurm.account not in accounts:
        return [f"slurm.account is {slurm.account!r}; user {user} may use: {', '.join(accounts)}"]
    qos = sorted({name for account, _, names in rows if slurm.account in ("", account) for name in names.split(",")})
    if slurm.qos and any(qos) and slurm.qos not in qos:
        return [f"slurm.qos is {slurm.qos!r}; user {user} may use: {', '.join(name for name in qos if name)}"]
    return []


# --- Disks -----------------------------------------------------------------------------------------------------------


def _unusable(runs: Path) -> list[str]:
    """What is wrong with the disk of the run folders, tried by a small file that is written, locked and removed."""
    folder = _existing(runs)
    probe = folder / f".probe-{socket.gethostname()}-{os.getpid()}"
    try:
        probe.write_bytes(b"probe")
    except OSError as error:
        return [f"runs is {runs}, but {folder} cannot be written: {error.strerror}; give another path"]
    advice = "give a path on a disk with flock (for Lustre: mounted with -o flock)"
    try:
        with files.lock(probe):
            held = files.is_locked(probe)
        return [] if held else [f"runs is {runs}: file locks do not hold on that disk; {advice}"]
    except OSError as error:
        return [f"runs is {runs}: files cannot be locked on that disk ({error.strerror}); {advice}"]
    finally:
        with contextlib.suppress(OSError):
            probe.unlink()


def _existing(path: Path) -> Path:
    """The path, or its nearest parent that is there."""
    return next(folder for folder in (path, *path.parents) if os.path.exists(folder))


def _local_disks(paths: Mapping[str, str]) -> list[str]:
    """The paths on a disk that, by its type, only this machine has; one line a disk."""
    found: dict[tuple[str, str], list[str]] = {}
    for name, path in paths.items():
        mount, kind = _mount(Path(path).resolve())
        if kind in LOCAL_DISKS:
            found.setdefault((mount, kind), []).append(f"{name} ({path})")
    return [
        f"{', '.join(names)}: on a disk of this machine alone, by its type ({kind} at {mount}); give a path that the "
        "nodes share, or set slurm.shared_disks = true if they do share it"
        for (mount, kind), names in found.items()
    ]


def _mount(path: Path) -> tuple[str, str]:
    """Where the file system that holds `path` is mounted, and its type; empty where the system does not say."""
    best = ("", "")
    with contextlib.suppress(OSError):
        for line in MOUNTS.read_text(errors="replace").splitlines():
            _, mount, kind, *_ = line.split()
            mount = re.sub(r"\\(\d{3})", lambda match: chr(int(match[1], 8)), mount)
            if path.is_relative_to(mount) and len(mount) >= len(best[0]):  # of two at one place the later is seen
                best = (mount, kind)
    return best


def _full(runs: Path, plan: Plan, cluster: Cluster) -> list[str]:
    """Whether the disk of the run folders has too little left for what the plan will write."""
    expected = estimate(plan, cluster)
    needed = expected.final_bytes + expected.peak_bytes
    free = shutil.disk_usage(_existing(runs)).free
    for item in plan.runs.values():
        if item.state in ("interrupted", "running"):
            for path in item.run.checkpoints():
                with contextlib.suppress(OSError):  # it has just made place for the next
                    free += path.stat().st_size  # the estimate counts it too
    if free >= needed:
        return []
    return [
        f"runs is {runs}: {gigabytes(free)} are free, the plan takes up to {gigabytes(needed)}; free some "
        "(python -m pipeline.clean), give a path on a larger disk, or launch fewer at once (--jobs)"
    ]
