"""Calls of Slurm's tools: the queue, the site's settings, cancelling; errors are in their own words."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.core import files

TAG = "cass-pipeline"  # starts the comment of every job from here; the runs folder and the submission id follow
MAX_ARRAY = 1001  # Slurm's default MaxArraySize
ME = str(os.getuid())
FIXED = {"LC_ALL": "C", "SLURM_BITSTR_LEN": "0"}  # English, and the tasks of an array in full
USER_SETTINGS = ("SQUEUE_", "SACCT_")  # environment variables by which a person sets what these tools show


@dataclass(frozen=True)
class QueuedJob:
    """A job, or one task of an array, as squeue shows it."""

    id: str
    state: str
    """PENDING, RUNNING, …"""
    reason: str
    submission: str
    """The id of the submission that it belongs to."""
    node: str


def ask(*command: str, timeout: float = 60.0) -> str:
    """What a Slurm tool prints; `ValueError` with its own words if it is missing, fails or does not answer."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith(USER_SETTINGS)}
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            encoding="utf-8",
            errors="replace",  # job names and nodes' reasons are of other people's encodings
            timeout=timeout,
            env=plain | FIXED,
        )
    except FileNotFoundError:
        raise ValueError(f"there is no {command[0]} here; run this on a login node of the cluster") from None
    except subprocess.TimeoutExpired:
        raise ValueError(f"{command[0]} did not answer within {timeout:.0f} s; is the scheduler up?") from None
    if done.returncode:
        words = " ".join((done.stderr.strip() or done.stdout.strip()).split())
        raise ValueError(f"{command[0]} {command[1] if len(command) > 1 else ''} failed: {words}")
    return done.stdout


def queued_jobs(runs: Path) -> list[QueuedJob]:
    """This user's jobs for these runs that have not ended, array tasks one by one."""
    out = []
    for line in ask("squeue", "-h", "-r", "-u", ME, "-o", "%i|%T|%r|%N|%k").splitlines():
        identity, state, reason, node, comment = (part.strip() for part in f"{line}||||".split("|", 4))
        comment = comment.rstrip("|")  # other jobs' comments may hold anything
        if comment.startswith(head := comment_of(runs)):
            out.append(QueuedJob(identity, state, reason, comment.removeprefix(head), node))
    return out


def comment_of(runs: Path, submission: str = "") -> str:
    """The comment of a submission's jobs; it names the runs folder too, since a user may have several."""
    return f"{TAG}:{files.sha256_bytes(str(runs).encode())[:8]}:{submission}"


def user_jobs() -> int:
    """How many jobs this user has in the queue, from here or not; each array task counts."""
    return len(ask("squeue", "-h", "-r", "-u", ME, "-o", "%i").splitlines())


def config(*, timeout: float = 60.0) -> dict[str, str]:
    """The site's settings as `scontrol show config` prints them."""
    pairs = (line.partition("=") for line in ask("scontrol", "show", "config", timeout=timeout).splitlines())
    return {name.strip(): value.strip() for name, equals, value in pairs if equals}


def max_array_size() -> int:
    """How many tasks an array may have: the site's MaxArraySize, below which indices are, or its max_array_tasks."""
    site = config()
    most = int(site.get("MaxArraySize", MAX_ARRAY))
    tasks = re.search(r"\bmax_array_tasks=(\d+)", site.get("SchedulerParameters", ""))
    return max(1, min(most, int(tasks[1])) if tasks else most)


def scancel(job_ids: Sequence[str]) -> None:
    """Cancel jobs; they do not come back. Running ones save first."""
    for start in range(0, len(job_ids), 500):
        ask("scancel", *job_ids[start : start + 500])
