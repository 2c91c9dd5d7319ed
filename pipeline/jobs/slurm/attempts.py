"""What a waiting launch does about jobs that ended before their runs: whose jobs get further is sent again."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Container, Iterable, Mapping
from pathlib import Path

from pipeline.core import files
from pipeline.core.console import counted
from pipeline.jobs.fanout import parent_state
from pipeline.jobs.plan import TO_DO
from pipeline.jobs.slurm.endings import Ending, endings
from pipeline.jobs.slurm.scheduler import QueuedJob
from pipeline.jobs.submissions import Submission
from pipeline.runs.folder import Run

IDLE_JOBS = 3  # in a row without a step beyond the checkpoint they began from, after which a run has failed


class Attempts:
    """The jobs that a launch has sent or seen, how far their runs were then, and what became of them.

    A job got further if any of its runs has a later checkpoint, or is done. So a fan-out whose trials end one by one
    continues for as long as they do, and preemption may come any number of times.
    """

    def __init__(self, runs: Path, *, accounting: bool) -> None:
        self.runs = runs
        self.accounting = accounting
        self.jobs: dict[str, dict[str, int]] = {}
        """Of each job that has not ended, how far each of its runs was when it was sent or first seen."""
        self.idle: Counter[str] = Counter()
        """By run, how many of its jobs in a row got no further."""
        self.at_work: dict[str, dict[str, int]] = {}
        """Of each job at work, how far each of its runs was as it began."""
        self.fruitless: Counter[str] = Counter()
        """By job, how many times in a row it came back into the queue and had got no further."""
        self.cancelled: set[str] = set()
        """Runs whose job a person cancelled; they are not sent again."""

    def note_sent(self, sent: Iterable[Submission]) -> None:
        """Note the jobs of these submissions."""
        for submission in sent:
            for job, its_runs in submission.live_tasks():
                self._note(job, its_runs)

    def note_queue(self, live: Mapping[str, QueuedJob]) -> list[str]:
        """Note the jobs in the queue, by run; of those that have left it, find out what became of their runs.

        A run whose last jobs all got no further is marked as failed. Returns in words what a person should know.
        """
        by_job: dict[str, list[str]] = {}
        for run, queued in live.items():
            by_job.setdefault(queued.id, []).append(run)
        gone = [job for job in self.jobs if job not in by_job and not self._works(job)]
        for job, its_runs in by_job.items():
            self._note(job, its_runs)
        left = {job: names for job in gone if (names := self._to_do(self.jobs[job]))}
        how = endings(left, accounting=self.accounting) if left else {}
        further = {job: any(self._run(run).reached() > then for run, then in self.jobs[job].items()) for job in left}
        began = {name for names in left.values() for name in names if self._could_begin(name)}
        said = [line for job, its_runs in by_job.items() for line in self._returned(job, live[its_runs[0]])]
        for job in gone:  # only now, so that a disk that is away for a moment has no ending forgotten
            del self.jobs[job]
            if job in left:
                said += self._judge(job, left[job], how.get(job), further=further[job], began=began)
        return said

    def _judge(
        self, job: str, names: list[str], how: Ending | None, *, further: bool, began: Container[str]
    ) -> list[str]:
        """Note what becomes of the runs that a job left; returns it in words."""
        words = how.words if how else "ended"
        if how and how.by_person:
            self.cancelled.update(names)
            return [f"job {job} was {words}: {counted(len(names), 'run')} not sent again by this launch"]
        if not further:
            names = [name for name in names if name in began]
        for name in names:
            self.idle[name] = 0 if further else self.idle[name] + 1
            if self.idle[name] >= IDLE_JOBS:
                note_idle(self._run(name), words)
        return [f"job {job}: {words}" + ("" if further else "; it got no further than the one before")] if names else []

    def _returned(self, job: str, queued: QueuedJob) -> list[str]:
        """Say of a job that was at work and waits again where that happened several times and it got no further.

        It is not given up: a preemption is no failure. But a time limit below what a first checkpoint takes never ends.
        """
        if queued.state == "RUNNING" and job not in self.at_work:
            self.at_work[job] = {run: self._run(run).reached() for run in self.jobs[job]}
        if queued.state != "PENDING" or job not in self.at_work:
            return []
        before = self.at_work.pop(job)
        further = any(self._run(run).reached() > then for run, then in before.items())
        self.fruitless[job] = times = 0 if further else self.fruitless[job] + 1
        if further or times % IDLE_JOBS:
            return []
        return [
            f"job {job} came back into the queue {times} times in a row without a step beyond its checkpoint: "
            f"python -m pipeline.logs {min(before)} --job; a longer slurm.hours or fewer checkpoint_minutes may help"
        ]

    def _note(self, job: str, its_runs: Iterable[str]) -> None:
        if job not in self.jobs:
            self.jobs[job] = {run: self._run(run).reached() for run in its_runs}

    def _works(self, job: str) -> bool:
        """Whether a process of a job that has left the queue still holds one of its runs, as on a lost node."""
        return any(self._run(run).state() == "running" for run in self.jobs[job])

    def _to_do(self, names: Iterable[str]) -> list[str]:
        return [name for name in names if self._run(name).state() in TO_DO]

    def _could_begin(self, name: str) -> bool:
        """Whether a run waits for no pretraining run; also not where somebody has deleted its folder."""
        with contextlib.suppress(FileNotFoundError):
            return parent_state(self._run(name)) == "done"
        return False

    def _run(self, name: str) -> Run:
        return Run(self.runs / name)


def note_idle(run: Run, how: str) -> None:
    """Mark a run as failed whose last jobs got no further and left no error."""
    files.write_text(
        run["error"],
        f"its last {IDLE_JOBS} jobs ended without a step beyond its checkpoint, the last of them {how} "
        f"(python -m pipeline.logs {run.id} --job); launch --retry continues from the checkpoint\n",
    )
