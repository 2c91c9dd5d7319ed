"""Jobs in a container without Slurm's tools: requeues, preemption, and the bits of outside."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time

import kill
import pytest
import sites
import tiny
from test_interruptions import call, job_of, starts, wait

from pipeline.jobs.slurm import scheduler

pytestmark = pytest.mark.usefixtures("devcluster")

TOOLS = ("scontrol", "srun", "sbatch", "squeue", "sacct", "scancel", "sinfo")
EPOCHS = 60


def bubblewrap() -> str:
    """A command line that runs in this machine's own files, without Slurm's tools, configuration and keys."""
    if not shutil.which("bwrap") and subprocess.run(["apt-get", "install", "-y", "bubblewrap"]).returncode:
        pytest.skip("bubblewrap is not installed and cannot be")
    hidden = [f"--ro-bind /dev/null {path}" for tool in TOOLS if (path := shutil.which(tool))]
    own = "--bind / / --dev-bind /dev /dev --unshare-pid --proc /proc"
    return f"bwrap {own} {' '.join(hidden)} --tmpfs /etc/slurm --tmpfs /run/munge --"


def test_a_grid_in_a_container_is_requeued_from_outside_and_has_the_bits_of_outside(tmp_path, request):
    shards = tiny.make_shards(tmp_path).folder.parent
    (tmp_path / "outside").mkdir()
    outside = sites.Site(tmp_path / "outside", shards)
    outside.write_grid(epochs=EPOCHS)
    calm = outside.start("launch")  # while jobs wait
    request.addfinalizer(calm.terminate)
    container = f'\n[slurm.container]\nruntime = "{bubblewrap()}"\n'
    site = sites.Site(tmp_path, shards, cluster=sites.SLURM + container)
    path = tmp_path / "here.toml"
    path.write_text(path.read_text().replace("[slurm.", f'python = "{sys.executable}"\n[slurm.'))
    site.write_grid(epochs=EPOCHS)
    launch = site.start("launch", "--wait")
    run = site.wait_for_a_step("cass")
    job = job_of(site, "cass")
    call("scancel", "--signal=USR2", job)  # as --signal=USR2@60 does before the limit
    wait(lambda: starts(run) == 2, "the second start")
    assert "stopped as asked" in run["log"].read_text() and job_of(site, "cass") == job
    site.wait_for_a_step("cass", after=time.time_ns())
    for _ in range(3):
        call(*"sbatch -p urgent --exclusive -t 2 -o /dev/null --wrap".split(), "sleep 1")
    wait(lambda: run["log"].read_text().count("stopped as asked") == 2, "the run to save")
    said, _ = launch.communicate(timeout=240)
    assert launch.returncode == 0, said
    assert starts(run) == 3 and f"requeued job {job}" in site.run("logs", "tiny-cass-s77", "--job")[1]
    said, _ = calm.communicate(timeout=240)
    assert calm.returncode == 0, said
    same = outside.runs()
    assert [line for name, other in site.runs().items() for line in kill.differences(other, same[name])] == []
    assert not scheduler.queued_jobs(tmp_path / "runs")
