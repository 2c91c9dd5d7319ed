"""What a site must offer before a plan is launched on it: a line for each problem, with its value and the next step."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
from collections.abc import Mapping
from pathlib import Path

from pipeline.core import files
from pipeline.core.console import counted
from pipeline.core.disks import Mount, mount_of
from pipeline.jobs import memory
from pipeline.jobs import plan as plans
from pipeline.jobs.estimate import estimate, gigabytes
from pipeline.jobs.gpus import gpus_of_job
from pipeline.jobs.plan import Plan
from pipeline.jobs.slurm import submit
from pipeline.jobs.slurm.preflight import is_this_machine, slurm_problems
from pipeline.runs.cluster import Cluster

LOCAL_DISKS = ("ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "f2fs", "tmpfs", "ramfs", "rootfs", "overlay")


def problems(cluster: Cluster, plan: Plan | None = None) -> list[str]:
    """What keeps this cluster file, and the plan, from being launched; empty if nothing does."""
    out = []
    if cluster.executor == "slurm":
        found, nodes = slurm_problems(cluster.slurm)
        out += found
        here = bool(nodes) and all(is_this_machine(node) for node in nodes)
        together, has = cluster.slurm.runs_per_job, gpus_of_job(cluster)
        if cluster.device != "cpu" and "gpu" in cluster.slurm.gres and together > has:
            out.append(
                f"slurm.runs_per_job is {together}, and a job with gres = {cluster.slurm.gres!r} has "
                f"{counted(has, 'GPU')}; request as many, or set it to {has}"
            )
        out += submit.path_problems(Path(cluster.runs).absolute())
        shared = {name: getattr(cluster, name) for name in ("runs", "shards", "weights")}
        if image := cluster.slurm.container.file:
            shared["image"] = str(image)
            if not image.exists():
                out.append(f"slurm.container.image is {image}: there is no such file; build it from slurm/image.def")
        if not cluster.slurm.shared_disks and not here:
            out += _local_disks(shared)
    else:
        try:
            _ = cluster.scratch_folder
        except ValueError as error:
            out.append(str(error))
    out += _unusable_folder(Path(cluster.runs))
    if plan is not None:
        out += _full_disk(plan, cluster)
        out += memory.problems(plan, cluster)
        out += [f"shards are missing; make them: {command}" for command in plan.missing_shards]
        out += plans.missing_weights(plan)
    return out


def _unusable_folder(runs: Path) -> list[str]:
    """What is wrong with the disk of the run folders; a small file there is written, locked and removed."""
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
    """The path, or its nearest parent that exists."""
    return next(folder for folder in (path, *path.parents) if os.path.exists(folder))


def _local_disks(paths: Mapping[str, str]) -> list[str]:
    """The paths on a disk that, by its type, only this machine has; one line a disk."""
    found: dict[Mount, list[str]] = {}
    for name, path in paths.items():
        mount = mount_of(Path(path))
        if mount.kind in LOCAL_DISKS:
            found.setdefault(mount, []).append(f"{name} ({path})")
    return [
        f"{', '.join(names)}: on a disk of this machine alone, by its type ({mount.kind} at {mount.point}); give a "
        "path that the nodes share, or set slurm.shared_disks = true if they do share it"
        for mount, names in found.items()
    ]


def _full_disk(plan: Plan, cluster: Cluster) -> list[str]:
    """Whether the disk of the run folders has too little space for what the plan will write."""
    runs = Path(cluster.runs)
    expected = estimate(plan, cluster)
    needed = expected.final_bytes + expected.peak_bytes
    free = shutil.disk_usage(_existing(runs)).free
    for planned in plan.in_state("interrupted", "running"):
        for path in planned.run.checkpoints():
            with contextlib.suppress(OSError):  # the run has just replaced it by its next
                free += path.stat().st_size  # the estimate counts it too
    if free >= needed:
        return []
    return [
        f"runs is {runs}: {gigabytes(free)} are free, the plan takes up to {gigabytes(needed)}; free some "
        "(python -m pipeline.clean), give a path on a larger disk, or launch fewer at once (--jobs)"
    ]
