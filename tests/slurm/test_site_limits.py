"""A real Slurm that limits its user: a launch never queues more than allowed, and status explains what waits."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import tiny
from planned import planned_runs
from repository import ROOT
from test_interruptions import wait

from pipeline.cli import plan_text, status_text
from pipeline.jobs.plan import Plan
from pipeline.jobs.slurm import queue, reconcile, scheduler, sending
from pipeline.runs.cluster import Slurm
from pipeline.study import paper

UP = ROOT / "slurm" / "devcluster" / "up"
SITE = Slurm(partition="main", gres="gpu:rtx8000:1", cpus=2, memory_gb=4.0, hours=2.0, parallelism=30)


def call(*command: str | Path) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


def allow(limit: str) -> None:
    """Set a limit of the user, and wait until the controller knows it too."""
    call("sacctmgr", "-i", "modify", "user", "root", "set", limit)
    wait(lambda: f"{limit}(" in scheduler.ask("scontrol", "show", "assoc_mgr", "users=root", "flags=assoc"), limit)


@pytest.fixture(scope="module")
def limits(devcluster: Path) -> Iterator[None]:
    """The site enforces limits, and its partition is down: nothing that is sent starts."""
    call(UP, "--limits", "yes")
    call("scontrol", "update", "PartitionName=main", "State=DOWN")
    yield
    call("scontrol", "update", "PartitionName=main", "State=UP")
    call("sacctmgr", "-i", "modify", "user", "root", "set", "MaxSubmitJobs=-1", "MaxJobs=-1")
    call(UP, "--limits", "no")


@pytest.fixture
def plan(limits: None, tmp_path: Path) -> Iterator[Plan]:
    """Seven pretraining jobs and their fan-outs."""
    plan = Plan("mine", tiny.make_cluster(tmp_path, executor="slurm", slurm=SITE), paper.preset("paper"), [], [])
    plan.runs = {planned.run.id: planned for planned in planned_runs(tmp_path / "runs", seeds=range(77, 84))}
    yield plan
    runs = tmp_path / "runs"
    reconcile.cancel_jobs(runs, scheduler.queued_jobs(runs))
    wait(lambda: not scheduler.queued_jobs(runs), "the jobs to go")


def test_the_queue_never_has_more_jobs_than_allowed(plan: Plan) -> None:
    runs = Path(plan.cluster.runs)
    allow("MaxSubmitJobs=5")
    assert "MaxSubmitJobs of user root in account root is 5: 5 of" in plan_text.arrays_text(plan)
    _, said = sending.submit_missing(plan)
    assert "2 of 7 jobs left for a later launch: MaxSubmitJobs of user root in account root is 5" in said[1]
    assert len(scheduler.queued_jobs(runs)) == 5
    assert sending.submit_missing(plan)[0] == []
    assert sending.submit_missing(plan, site=[])[0] == []  # sbatch refuses even one more
    allow("MaxSubmitJobs=8")
    sending.submit_missing(plan)
    assert len(scheduler.queued_jobs(runs)) == 8
    assert len(queue.queued_runs(runs, scheduler.queued_jobs(runs))) >= 8  # no run twice


def test_a_refused_array_is_sent_in_part_where_limits_are_hidden(plan: Plan) -> None:
    allow("MaxSubmitJobs=4")
    _, said = sending.submit_missing(plan, site=[])
    assert len(scheduler.queued_jobs(Path(plan.cluster.runs))) == 3  # half of seven
    assert "left for a later launch: sbatch says" in said[1]


def test_status_says_what_holds_a_job_and_what_to_do(plan: Plan) -> None:
    allow("MaxSubmitJobs=5")
    allow("MaxJobs=1")
    assert "MaxJobs of user root in account root: 1 job runs at once at most" in plan_text.arrays_text(plan)
    sending.submit_missing(plan)
    jobs = scheduler.queued_jobs(Path(plan.cluster.runs))
    call("scontrol", "hold", jobs[0].id)

    def says() -> dict[str, str]:
        return {row["job"]: row["says"] for row in status_text.status_rows(plan, queue.read_queue(plan))}

    wait(lambda: "(JobHeldAdmin): an administrator holds it" in says()[jobs[0].id], "the reason of a held job")
    wait(lambda: "(PartitionDown): the partition is down" in says()[jobs[2].id], "the reason of a waiting job")
