"""Sharding on Slurm: an array whose tasks write tars of their own, and a job after it that writes the index.

All of them read one plan, which is published next to the shards before anything is sent. The shard folder says what is
written, so the same command again sends only what is neither there nor in the queue.
"""

from __future__ import annotations

import dataclasses
import pickle
import shutil
from collections.abc import Sequence
from pathlib import Path

from pipeline.core import files
from pipeline.core.console import counted, silent
from pipeline.data.shards import quarantine, write
from pipeline.data.shards.plan import ShardPlan
from pipeline.jobs.signals import leave_at_time_limit
from pipeline.jobs.slurm import limits, reconcile, scheduler, submit
from pipeline.jobs.snapshot import snapshot
from pipeline.jobs.submissions import FOLDER, OLD_FOLDER, Submission, write_submission
from pipeline.runs.cluster import Cluster

TARS, INDEX = "tars", "index"  # the ids of the two submissions
PATIENCE = 3600.0  # seconds for a node thought dead that may still write


@dataclasses.dataclass(frozen=True)
class ShardPayload:
    """What a job is given: call it to write the tars of one part, or, with `parts=0`, what is left and the index."""

    plan: str
    """The path of the plan, which the version of the code that the job runs can read."""
    part: int
    parts: int
    workers: int
    max_bad: float
    strict: bool
    check: bool = False

    def __call__(self) -> None:
        leave_at_time_limit()
        plan: ShardPlan = pickle.loads(Path(self.plan).read_bytes())
        out = Path(self.plan).parents[2]
        if self.parts:
            write.write_part(plan, out, self.part, self.parts, workers=self.workers, progress=silent, patience=PATIENCE)
        else:
            write.write_shards(
                plan,
                out,
                workers=self.workers,
                max_bad=self.max_bad,
                strict=self.strict,
                progress=silent,
                patience=PATIENCE,
                check=self.check,
            )


def submit_missing(
    plan: ShardPlan, out: Path, cluster: Cluster, *, max_bad: float, strict: bool, check: bool = False
) -> list[str]:
    """Send what of the plan is neither written nor in the queue; returns what was done, in words.

    `out` is absolute, on a disk that the nodes share. The jobs request no GPU. Raises `ValueError` if more images are
    unusable than `max_bad` and `strict` allow.
    """
    if found := submit.path_problems(out):
        raise ValueError(found[0])
    quarantine.check(plan.quarantined, total=len(plan.listing.records), max_bad=max_bad, strict=strict)
    jobs = out / ".jobs" / plan.folder_name
    site = dataclasses.replace(cluster, shards=str(out), slurm=dataclasses.replace(cluster.slurm, gres=""))
    with reconcile.launch_lock(jobs):
        said = reconcile.repair(jobs, scheduler.queued_jobs(jobs))
        live = {job.submission: job.id.split("_")[0] for job in scheduler.queued_jobs(jobs)}
        code = snapshot(jobs)
        path = jobs / f"plan-{code.name}.pkl"  # jobs of earlier code read their own
        if INDEX not in live:
            with files.publish(path) as file:
                pickle.dump(plan, file)

        def payload(part: int, parts: int) -> ShardPayload:
            return ShardPayload(str(path), part, parts, cluster.slurm.cpus, max_bad, strict, check)

        def send(name: str, payloads: Sequence[ShardPayload], after: Sequence[str] = ()) -> None:
            for folder in (FOLDER, OLD_FOLDER):
                shutil.rmtree(jobs / folder / name, ignore_errors=True)
            title, no_runs = f"shard.{plan.dataset.name}.{name}", ((),) * len(payloads)
            submission = Submission(jobs / FOLDER / name, title, no_runs, fan_out=True, code=code.name, by_hand=False)
            write_submission(submission)
            live[name] = submit.send_payloads(submission, site, code, payloads, after=after, parallelism=len(payloads))
            said.append(f"sent {live[name]} {submission.name}: {counted(len(payloads), 'task')}")

        left = write.count_missing_tars(plan, out)
        parts = min(left, cluster.slurm.parallelism, scheduler.max_array_size())
        room, _ = limits.room(limits.read_limits(site.slurm), site.slurm.max_jobs)
        parts = parts if room is None else min(parts, max(1, room - 1))  # the index is a job, too
        if INDEX in live:
            said.append(f"job {live[INDEX]} is to write {out / plan.folder_name}; nothing was sent")
        else:
            if parts > 1 and TARS not in live:
                send(TARS, [payload(part, parts) for part in range(parts)])
            send(INDEX, [payload(0, 0)], after=[live[TARS]] if TARS in live else [])
    return said
