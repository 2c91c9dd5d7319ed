"""Sharding on Slurm: an array whose tasks write tars of their own, and a job after it that writes the index.

All of them read one plan, which is published beside the shards before anything is sent. What is written is read from
the shard folder, so the same command again sends only what neither is there nor is in the queue.
"""

from __future__ import annotations

import dataclasses
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.core import files
from pipeline.core.console import silent
from pipeline.data.shards import quarantine, write
from pipeline.data.shards.plan import ShardPlan
from pipeline.jobs.slurm import reconcile, scheduler, submit
from pipeline.jobs.snapshot import snapshot
from pipeline.jobs.submissions import FOLDER, Submission, write_submission
from pipeline.runs.cluster import Cluster

TARS, INDEX = "tars", "index"  # the tokens of the two orders
PATIENCE = 3600.0  # seconds for a node thought dead that may still write


@dataclasses.dataclass(frozen=True)
class Task:
    """What travels to a node: call it to write the tars of one part, or, with `parts=0`, what is left and the index."""

    jobs: str
    """The folder that holds the plan."""
    part: int
    parts: int
    workers: int
    max_bad: float
    strict: bool

    def __call__(self) -> None:
        plan: ShardPlan = pickle.loads((Path(self.jobs) / "plan.pkl").read_bytes())
        out = Path(self.jobs).parent.parent
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
            )

    def checkpoint(self) -> Any:
        """What submitit submits again after a time limit: the same task; what it wrote is in the shard folder."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def submit_missing(plan: ShardPlan, out: Path, cluster: Cluster, *, max_bad: float, strict: bool) -> list[str]:
    """Send what of the plan is neither written nor in the queue; returns what was done, in words.

    `out` is absolute, on a disk that the nodes share. No GPU is asked for.
    """
    quarantine.check(plan.quarantined, total=len(plan.listing.records), max_bad=max_bad, strict=strict)
    jobs = out / ".jobs" / plan.folder_name
    site = dataclasses.replace(cluster, slurm=dataclasses.replace(cluster.slurm, gres=""))
    with files.lock(jobs / ".launch.lock", patience=reconcile.LAUNCH_PATIENCE, what="another launch's submission"):
        said = reconcile.mend(jobs, scheduler.queued_jobs(jobs))
        live = {job.token: job.id.split("_")[0] for job in scheduler.queued_jobs(jobs)}
        code = snapshot(jobs)
        if INDEX not in live:
            with files.publish(jobs / "plan.pkl") as file:
                pickle.dump(plan, file)

        def task(part: int, parts: int) -> Task:
            return Task(str(jobs), part, parts, cluster.slurm.cpus, max_bad, strict)

        def send(token: str, tasks: Sequence[Task], after: Sequence[str] = ()) -> None:
            submission = Submission(
                jobs / FOLDER / token, f"shard.{plan.dataset.name}.{token}", ((),) * len(tasks), True, code.name, False
            )
            submission.remove()
            write_submission(submission)
            live[token] = submit.send_tasks(submission, site, code, tasks, after=after, parallelism=len(tasks))
            said.append(f"sent {live[token]} {submission.name}: {len(tasks)} tasks")

        left = write.count_missing_tars(plan, out)
        parts = min(left, cluster.slurm.parallelism, scheduler.max_array_size())
        if INDEX in live:
            said.append(f"job {live[INDEX]} is to write {out / plan.folder_name}; nothing was sent")
        else:
            if parts > 1 and TARS not in live:
                send(TARS, [task(part, parts) for part in range(parts)])
            send(INDEX, [task(0, 0)], after=[live[TARS]] if TARS in live else [])
    return said
