"""What memory a job may use, and a process that keeps the memory that it frees."""

from __future__ import annotations

import ctypes
import os
import resource
from collections.abc import Iterator, Mapping
from pathlib import Path

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h
MAX_KEPT_BYTES = 2**30  # free memory that a process keeps at the end of its heap
MAX_MMAP_THRESHOLD = 2**25  # bytes; glibc before 2.35 refuses a larger M_MMAP_THRESHOLD
USABLE = 0.8  # of the job's memory; the rest is for its first process and the page cache
UNLIMITED = 2**60  # cgroups call a number of about 2**63 no limit
CONTROLLERS = {"memory": ("memory", "memory.limit_in_bytes"), "": ("", "memory.max")}  # of cgroups, versions 1 and 2


def keep_freed_memory() -> None:
    """Make glibc keep freed memory for the next array instead of returning it to the system.

    Page faults on fresh memory cost more time than most operations on the array. Does nothing without glibc.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        if not libc.mallopt(M_MMAP_THRESHOLD, MAX_KEPT_BYTES):  # glibc before 2.35
            libc.mallopt(M_MMAP_THRESHOLD, MAX_MMAP_THRESHOLD)
        libc.mallopt(M_TRIM_THRESHOLD, MAX_KEPT_BYTES)


def job_bytes(environment: Mapping[str, str] = os.environ, root: Path = Path("/")) -> int:
    """The memory of this job: the least of the machine's, its cgroups' and what Slurm granted."""
    physical = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return min([physical, *_of_slurm(environment), *_of_cgroups(root)])


def share_of_worker(workers: int) -> int:
    """The bytes that each of several worker processes may take for an image."""
    limits = (resource.getrlimit(kind)[0] for kind in (resource.RLIMIT_AS, resource.RLIMIT_DATA))
    own = [int(USABLE * limit) for limit in limits if limit != resource.RLIM_INFINITY]  # each process has them alone
    return min([int(USABLE * job_bytes()) // workers, *own])


def limit_growth(size: int) -> None:
    """Let this process take at most `size` bytes more than it has now; what it asks for beyond that is refused."""
    has = int(Path("/proc/self/statm").read_text().split()[5]) * os.sysconf("SC_PAGE_SIZE")
    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    wanted = has + size
    resource.setrlimit(resource.RLIMIT_DATA, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard))


def _of_slurm(environment: Mapping[str, str]) -> Iterator[int]:
    """Slurm's variables are in MiB; 0 is all that the node has."""
    if "SLURM_JOB_ID" not in environment:
        return
    if (node := environment.get("SLURM_MEM_PER_NODE", "0")).isdigit() and int(node):
        yield int(node) << 20
    cpu, cpus = environment.get("SLURM_MEM_PER_CPU", "0"), environment.get("SLURM_CPUS_ON_NODE", "1")
    if cpu.isdigit() and cpus.isdigit() and int(cpu):
        yield (int(cpu) << 20) * int(cpus)


def _of_cgroups(root: Path) -> Iterator[int]:
    """The limits of this process's memory cgroup and of all above it."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, name = line.split(":", 2)
        for controller in set(controllers.split(",")) & set(CONTROLLERS):
            folder, file = CONTROLLERS[controller]
            top = root / "sys/fs/cgroup" / folder
            group = top / name.strip("/")
            for place in [group, *group.parents]:
                if place.is_relative_to(top):
                    try:
                        text = (place / file).read_text().strip()
                    except OSError:  # a container may not show the group's own folder
                        continue
                    if text.isdigit() and 0 < int(text) < UNLIMITED:
                        yield int(text)
