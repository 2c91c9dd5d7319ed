"""How jobs ended, in Slurm's words and in plain ones: from the controller's memory, and from accounting after that."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from pipeline.jobs.signals import REQUEUE, STOPPED
from pipeline.jobs.slurm.scheduler import ask

WORDS = {
    "PREEMPTED": "preempted",
    "TIMEOUT": "reached its time limit",
    "DEADLINE": "reached its deadline",
    "NODE_FAIL": "its node failed",
    "BOOT_FAIL": "its node did not start",
    "OUT_OF_MEMORY": "out of memory (memory_gb)",
    "CANCELLED": "cancelled by a person",
    "COMPLETED": "ended by itself",
}
LIVE = ("PENDING", "RUNNING", "REQUEUED", "SUSPENDED", "COMPLETING", "CONFIGURING", "RESIZING")
FIELD = re.compile(r"\b(ArrayJobId|ArrayTaskId|JobId|JobState|ExitCode)=(\S+)")
# asked of each tool
SCONTROL, SACCT = 15.0, 15.0  # seconds


@dataclass(frozen=True)
class Ending:
    """How a job ended."""

    state: str
    """Slurm's word, as `TIMEOUT`; accounting adds who cancelled (`CANCELLED by 1000`)."""
    exit_code: str
    """`code:signal`."""

    @property
    def by_person(self) -> bool:
        """Whether somebody cancelled it; what preemption cancels is `PREEMPTED`."""
        return self.state.startswith("CANCELLED")

    @property
    def words(self) -> str:
        """What ended it, for people."""
        code, _, number = self.exit_code.partition(":")
        if self.state == "FAILED" and code == str(STOPPED):
            return "preempted (it saved and left when it was asked to)"
        if self.state == "FAILED" and code == str(REQUEUE):
            return "saved and not requeued: slurm.requeues allows no further start, or scontrol requeue failed"
        if self.state == "FAILED":
            return f"killed by signal {number}" if number not in ("", "0") else f"failed with exit code {code}"
        word = self.state.split()[0] if self.state else ""
        return WORDS.get(word, word.lower().replace("_", " "))


def endings(job_ids: Iterable[str], *, accounting: bool) -> dict[str, Ending]:
    """How these jobs ended, by id; those that neither the controller nor accounting knows, or that live, are left out.

    The controller is asked first: it knows at once, and forgets after some minutes (MinJobAge).
    """
    wanted = set(job_ids)
    arrays = sorted({identity.split("_")[0] for identity in wanted})
    found = remembered(arrays)
    if accounting and (left := {identity.split("_")[0] for identity in wanted - found.keys()}):
        found = {**recorded(sorted(left)), **found}
    return {name: end for name, end in found.items() if name in wanted and end.state.split()[0] not in LIVE}


def remembered(arrays: list[str]) -> dict[str, Ending]:
    """What the controller still knows of these arrays and single jobs: one call, for several of all jobs."""
    only = arrays if len(arrays) == 1 else []
    try:
        text = ask("scontrol", "show", "job", "-o", *only, timeout=SCONTROL)
    except ValueError:
        return {}
    out = {}
    for line in text.splitlines():
        fields = dict(FIELD.findall(line))
        if "JobId" in fields:
            array, tasks = fields.get("ArrayJobId"), tasks_of(fields.get("ArrayTaskId", ""))
            for name in [f"{array}_{task}" for task in tasks] if array and tasks else [fields["JobId"]]:
                out[name] = Ending(fields.get("JobState", ""), fields.get("ExitCode", "0:0"))
    return out


def recorded(arrays: list[str]) -> dict[str, Ending]:
    """The same from one call of accounting; empty where it is off, slow or does not know."""
    try:
        text = ask("sacct", "-n", "-X", "-P", "-j", ",".join(arrays), "-o", "JobID,State,ExitCode", timeout=SACCT)
    except ValueError:
        return {}
    rows = (line.split("|") for line in text.splitlines())
    out = {}
    for job, state, code in (row for row in rows if len(row) == 3 and row[1]):
        array, bracket, tasks = job.partition("_[")
        for name in [f"{array}_{task}" for task in tasks_of(tasks)] if bracket else [job]:
            out[name] = Ending(state, code)
    return out


def tasks_of(text: str) -> list[str]:
    """The indices of an array's tasks as Slurm writes them: `3`, `0-2,7%4`, `[0-8:2]`."""
    out: list[str] = []
    for part in text.strip("[]").partition("%")[0].split(","):
        if found := re.fullmatch(r"(\d+)(?:-(\d+)(?::(\d+))?)?", part):
            out += map(str, range(int(found[1]), int(found[2] or found[1]) + 1, int(found[3] or 1)))
    return out
