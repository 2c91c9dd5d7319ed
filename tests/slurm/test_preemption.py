"""Preemption that ends jobs for good or stops them for a while: a waiting launch brings its runs to their end."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest
import sites
import tiny
from repository import ROOT
from test_interruptions import call, job_of, starts, wait

from pipeline.jobs.slurm import scheduler

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("devcluster")]

CLUSTER = sites.SLURM.replace("checkpoint_minutes = 60.0", "checkpoint_minutes = 0.02")
URGENT = "sbatch --parsable -p urgent -t 2 -o /dev/null".split()
MANY = 100000  # epochs: never done here


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> Path:
    return tiny.make_shards(tmp_path_factory.mktemp("shards")).folder.parent


@pytest.fixture
def site(tmp_path, shards):
    started = []

    class Site(sites.Site):
        def start(self, command: str, *arguments: str) -> subprocess.Popen[str]:
            started.append(super().start(command, *arguments))
            return started[-1]

    yield Site(tmp_path, shards, cluster=CLUSTER)
    for process in started:
        with process:
            process.kill()
    subprocess.run(["scancel", "-u", "root"], capture_output=True)
    preempts("requeue")


def preempts(mode: str, grace: str = "15", signal: str = "user") -> None:
    call(str(ROOT / "slurm/devcluster/up"), "--preempt", mode, "--grace", grace, "--signal", signal)


def take_every_node(seconds: int, *wanted: str) -> list[str]:
    """Returns the ids of the jobs that do."""
    return [call(*URGENT, *wanted, "--wrap", f"sleep {seconds}").strip() for _ in range(3)]


@pytest.mark.parametrize(("grace", "signal"), [("15", "user"), ("0", "none")])
def test_a_waiting_launch_sends_a_run_again_for_as_long_as_its_jobs_get_further(site, grace, signal):
    """With a signal of its own a job may put itself back into the queue before it is cancelled."""
    preempts("cancel", grace, signal)
    site.write_grid(epochs=MANY, alone=True)
    launch = site.start("launch", "--wait")
    reached = 0
    for times in range(1, 4):  # as often as jobs that get no further are sent
        run = site.wait_for_a_step("cass", after=time.time_ns())
        wait(lambda run=run, before=reached: run.reached() > before, "a checkpoint")
        reached = run.reached()
        take_every_node(1, "--exclusive")
        wait(lambda run=run, times=times: starts(run) > times, "the run to start again")
    wait(lambda: run.reached() > reached, "the fourth start to get further")
    launch.terminate()
    out, _ = launch.communicate(timeout=60)
    assert launch.returncode == 130 and run.state() == "running", out
    assert out.count(": preempted") >= (3 if signal == "none" else 0) and "got no further" not in out


def test_what_a_person_cancels_stays_cancelled(site):
    site.write_grid(epochs=MANY)
    launch = site.start("launch", "--wait")
    run = site.wait_for_a_step("cass")
    call("scancel", job_of(site, "cass"))
    out, _ = launch.communicate(timeout=240)
    assert launch.returncode == 1 and "cancelled by a person: 1 run not sent again" in out, out
    assert starts(run) == 1 and run.state() == "interrupted"
    assert site.runs()["cass-test_resnet-100pct"].state() == "pending", "it starts from that one"
    assert site.runs()["supervised-test_vit-100pct"].state() == "done", out


def test_a_suspended_job_continues_with_its_lock_and_its_time_when_it_may(site):
    preempts("suspend", "0")
    site.write_grid(epochs=MANY, alone=True)
    assert site.run("launch")[0] == 0
    run = site.wait_for_a_step("cass")
    job = job_of(site, "cass")
    urgent = take_every_node(100, "--cpus-per-task=2", "--mem=1G")  # a stopped job keeps its memory and its GPU
    wait(lambda: "SUSPENDED" in {q.state for q in scheduler.queued_jobs(site.folder / "runs")}, "the job to stop")
    said = site.run("status")[1]
    assert run.state() == "running" and "suspended" in said, said
    assert "nothing to send" in site.run("launch")[1]
    call("scancel", *urgent)
    site.wait_for_a_step("cass", after=time.time_ns())
    assert job_of(site, "cass") == job and starts(run) == 1


@pytest.mark.parametrize("known", [True, False])
def test_scratch_is_resolved_in_the_job(site, known):
    path = site.folder / "here.toml"
    setup = f'setup = ["export NODE_TMP={site.folder}/local-$SLURM_JOB_ID"]\n' if known else ""
    path.write_text('scratch = "$NODE_TMP/cass"\n' + path.read_text() + setup)
    code, out = site.run("launch", "--wait")
    run = site.runs()["cass"]
    if known:
        assert code == 0 and "/local-" in run["log"].read_text(), out
        assert list(site.folder.glob("local-*/cass/*.u8"))
    else:
        assert code == 1 and "NODE_TMP is not set on" in run.reason() and "in the job" in run.reason(), out
        assert not run.checkpoints() and not run["start"].exists(), "it failed before training"
