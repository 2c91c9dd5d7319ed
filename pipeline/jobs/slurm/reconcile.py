"""Submissions and queue made to agree, whatever killed a launch between two of its steps.

An array is sent held, and released when its id is on disk. So a launch that is killed in between leaves nothing that
could run twice: the next launch cancels held arrays that no submission knows, and releases those that one knows.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from pipeline.core import files
from pipeline.jobs import submissions
from pipeline.jobs.slurm.scheduler import QueuedJob, ask, queued_jobs, scancel

LAUNCH_PATIENCE = 600.0  # seconds for another launch to end its own submission


@contextlib.contextmanager
def launch_lock(folder: Path) -> Iterator[None]:
    """Hold the lock that lets one launch at a time submit; `files.Busy` if another has it for too long."""
    with files.lock(folder / ".launch.lock", patience=LAUNCH_PATIENCE, what="another launch's submission"):
        yield


def repair(runs: Path, jobs: Sequence[QueuedJob]) -> list[str]:
    """Make submissions and queue agree after a launch was killed between two steps; returns what it did, in words."""
    said = []
    known = {submission.id: submission for submission in submissions.read_submissions(runs)}
    for name in {job.submission for job in jobs} | set(known):
        queued = [job for job in jobs if job.submission == name]
        array = queued[0].id.split("_")[0] if queued else ""
        submission = known.get(name)
        if submission is None:
            if array and all(job.reason == "JobHeldUser" for job in queued):
                ask("scancel", array)
                said.append(f"cancelled {array}: held, and no submission knows it")
        elif not submission.job and not submission.by_hand:
            # It was never released, whatever reason is shown: of a held array that depends on others it may be
            # `Dependency`. Jobs that have started were released by a person; cancelling others loses nothing.
            waiting = all(job.state == "PENDING" for job in queued)
            if array and not waiting:
                submission.note_job(array, released=True)
                continue
            if array:
                ask("scancel", array)
                said.append(f"cancelled {array}: held, and its launch was killed before it could note it")
            submission.remove()
        elif not submission.job and array:
            submission.note_job(array, released=True)
        elif submission.job and not submission.job["released"]:
            if array:
                _release(array, runs)
                said.append(f"released {array}, whose launch was killed before it could")
            submission.note_job(submission.job["id"], released=True)
    return said


def _release(array: str, runs: Path) -> None:
    """Release an array whose launch has not noted that it did.

    If it did (it was killed just then, or Slurm answered too late), tasks may have ended; of those scontrol complains,
    as long as the controller remembers them. So the queue decides whether any is held still.
    """
    try:
        ask("scontrol", "release", array)
    except ValueError:
        left = [job for job in queued_jobs(runs) if job.id.split("_")[0] == array]
        if any(job.reason in ("JobHeldUser", "Dependency") for job in left):  # a held one may be shown with either
            raise


def cancel_jobs(runs: Path, jobs: Sequence[QueuedJob]) -> None:
    """Cancel jobs, and mark their submissions, so that a launch that waits for them does not submit them again."""
    names = {job.submission for job in jobs}
    for submission in submissions.read_submissions(runs):
        if submission.id in names:
            submission.note_cancelled()
    scancel(sorted(job.id for job in jobs))
