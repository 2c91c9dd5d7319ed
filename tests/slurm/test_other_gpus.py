"""Nodes with GPUs of two kinds: a run that began on one waits for it, continues on the other, and restarts."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import sites
import tiny
from repository import ROOT
from test_containers import bubblewrap
from test_interruptions import call, job_of, starts, wait

from pipeline.core import files
from pipeline.jobs.slurm import scheduler

pytestmark = pytest.mark.usefixtures("devcluster")


@pytest.fixture
def two_kinds():
    up = str(ROOT / "slurm/devcluster/up")
    call(up, "--gpus", "rtx8000:1,a100:1")
    yield
    subprocess.run(["scancel", "-u", "root"], capture_output=True)
    wait(lambda: not call("squeue", "-h"), "the queue to be empty")
    call(up, "--gpus", "rtx8000:1")  # which resumes drained nodes, too


@pytest.fixture
def site(tmp_path):
    """A site whose device model is the GPU's kind: each job sees its own text as /proc/cpuinfo."""
    shards = tiny.make_shards(tmp_path).folder.parent
    cpus = Path("/proc/cpuinfo").read_text()
    for number in (1, 2, 3):
        model = f"model name\t: GPU {'RTX 8000' if number == 1 else 'A100'}"
        (tmp_path / f"cpuinfo-gpu{number}").write_text(re.sub(r"model name\s*:.*", model, cpus))
    runtime = bubblewrap().removesuffix("--") + f"--ro-bind {tmp_path}/cpuinfo-$SLURMD_NODENAME /proc/cpuinfo --"
    more = f'\npython = "{sys.executable}"\n[slurm.container]\nruntime = "{runtime}"\n'
    cluster = sites.SLURM.replace("gpu:rtx8000:1", "gpu:1").replace("= 60.0", "= 0.02")
    return sites.Site(tmp_path, shards, cluster=cluster + more)


def only(nodes: str) -> None:
    """Let jobs start on these nodes alone."""
    call("scontrol", "update", "NodeName=gpu[1-3]", "State=DRAIN", "Reason=test")
    call("scontrol", "update", f"NodeName={nodes}", "State=RESUME")


def test_it_waits_for_its_own_kind_or_continues_on_the_other_or_restarts_as_the_site_says(two_kinds, site):
    assert shutil.which("bwrap")
    only("gpu1")
    site.write_grid(epochs=100000, alone=True)
    assert site.run("launch")[0] == 0
    run = site.wait_for_a_step("cass")
    assert run.start().hardware["model"] == "GPU RTX 8000" and run.start().card == "gres:rtx8000"
    wait(run.checkpoints, "a checkpoint")
    job = job_of(site, "cass")

    def move(nodes: str) -> None:
        only(nodes)
        call("scontrol", "requeue", job)

    def choose(how: str) -> None:
        files.write_json(run["job"], {**files.read_json(run["job"]), "on_other_card": how})

    move("gpu[2-3]")
    shown = ("scontrol", "--oneliner", "show", "job", job)
    kept = ("JobState=PENDING", "ExcNodeList=gpu[2-3]")  # it is requeued first, and then told where to start
    wait(lambda: all(part in call(*shown) for part in kept), "the job to keep to the kind that its run began on")
    reached = run.reached()
    assert run.state() == "interrupted" and reached
    assert "waits for GPU RTX 8000 (gres:rtx8000)" in site.run("status")[1]
    only("gpu1")
    wait(lambda: starts(run) == 2 and run.reached() > reached, "the run to continue where it began")
    assert run.start().devices == () and not run["waits"].exists()

    choose("go_on")
    move("gpu[2-3]")
    wait(lambda: "JobState=PENDING" in call(*shown), "the job to leave")
    call("scontrol", "update", f"JobId={job}", "ExcNodeList=")
    wait(lambda: starts(run) == 3, "the run to continue on the other kind")
    first, second = run.start().devices
    assert (first["device"], second["device"]) == ("GPU RTX 8000", "GPU A100") and second["step"] > reached
    assert run.start().hardware["model"] == "GPU A100"

    choose("restart")
    run = site.wait_for_a_step("cass", after=time.time_ns())
    move("gpu1")
    wait(lambda: starts(run) == 4, "the run to start again")
    assert run.start().hardware["model"] == "GPU RTX 8000" and run.start().devices == ()
    assert "restarts on GPU RTX 8000" in run["log"].read_text()
    assert {queued.id for queued in scheduler.queued_jobs(site.folder / "runs")} >= {job}
