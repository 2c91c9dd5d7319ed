"""The Slurm on this machine starts completely, repairs itself, and leaves another Slurm alone."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
import tiny
from repository import ROOT

from pipeline.jobs import preflight
from pipeline.jobs.slurm import scheduler
from pipeline.runs.cluster import Slurm

SCRIPTS = ROOT / "slurm" / "devcluster"
DAEMONS = ("slurmdbd", "slurmctld", "slurmd-gpu1", "slurmd-gpu2", "slurmd-gpu3")


def run(*command: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, timeout=120)


def answer(*command: str) -> list[str]:
    done = run(*command)
    assert done.returncode == 0, done.stderr
    return done.stdout.split("\n")[:-1]


def pids(state: Path) -> dict[str, int]:
    return {name: int((state / f"{name}.pid").read_text()) for name in DAEMONS}


@pytest.mark.parametrize("script", ["up", "down"])
def test_help_says_what_it_does_to_anyone(script: str) -> None:
    done = run(SCRIPTS / script, "--help")
    assert done.returncode == 0
    assert done.stdout.startswith(f"Usage: slurm/devcluster/{script}")


def test_up_on_a_cluster_that_is_up_starts_nothing(devcluster: Path) -> None:
    before = pids(devcluster)
    done = run(SCRIPTS / "up")
    assert done.returncode == 0, done.stderr
    assert "Everything was up.\n" in done.stdout
    assert pids(devcluster) == before


def test_each_node_has_its_gpu_in_both_partitions(devcluster: Path) -> None:
    nodes = [f"{partition} gpu{n} gpu:rtx8000:1 2" for partition in ("main", "urgent") for n in (1, 2, 3)]
    assert sorted(answer("sinfo", "-h", "-N", "-o", "%R %N %G %c")) == nodes


def test_accounting_hears_what_becomes_of_a_job(devcluster: Path) -> None:
    [job] = answer("sbatch", "--parsable", "--hold", "--output=/dev/null", "--wrap=true")
    answer("scancel", job)
    deadline = time.monotonic() + 30  # a busy machine's accounting is seconds late
    while not any("CANCELLED" in line for line in answer("sacct", "-n", "-X", "-P", "-j", job, "-o", "state")):
        assert time.monotonic() < deadline, "sacct does not know it"
        time.sleep(0.2)


def test_up_starts_a_killed_daemon_and_resumes_a_drained_node(devcluster: Path) -> None:
    before = pids(devcluster)
    os.kill(before["slurmd-gpu3"], signal.SIGKILL)
    answer("scontrol", "update", "NodeName=gpu3", "State=DRAIN", "Reason=test")
    done = run(SCRIPTS / "up")
    assert done.returncode == 0, done.stderr
    assert "slurmd-gpu3 is up\n" in done.stdout
    assert "gpu3 was drain" in done.stdout
    after = pids(devcluster)
    assert [name for name in DAEMONS if after[name] != before[name]] == ["slurmd-gpu3"]


def test_another_slurms_configuration_is_refused_and_left_alone(devcluster: Path, tmp_path: Path) -> None:
    theirs = tmp_path / "slurm.conf"
    theirs.write_text("ClusterName=theirs\n")
    elsewhere = {"CASS_DEVCLUSTER": str(tmp_path / "state"), "CASS_DEVCLUSTER_CONF": str(tmp_path)}
    up = run(SCRIPTS / "up", **elsewhere)
    assert up.returncode == 2
    assert f"{theirs} is there and does not belong to the cluster in {tmp_path}/state" in up.stderr
    down = run(SCRIPTS / "down", **elsewhere)
    assert down.returncode == 0, down.stderr
    assert down.stdout == "Nothing is up.\n"
    assert [path.name for path in tmp_path.iterdir()] == ["slurm.conf"]
    assert theirs.read_text() == "ClusterName=theirs\n"


def test_what_is_checked_before_a_launch_holds_on_a_real_slurm(devcluster: Path, tmp_path: Path) -> None:
    slurm = Slurm(partition="main", gres="gpu:rtx8000:1", cpus=2, memory_gb=4.0, hours=2.0)
    cluster = tiny.make_cluster(tmp_path, executor="slurm", slurm=slurm)
    assert preflight.problems(cluster) == []
    assert scheduler.max_array_size() == 1001
    wrong = dataclasses.replace(slurm, gres="gpu:a100:1", hours=169.0, memory_gb=64.0)
    assert preflight.problems(dataclasses.replace(cluster, slurm=wrong)) == [
        "slurm.hours is 169, partition main allows 168; make it 168 or less",
        'no node of partition main meets memory_gb = 64 nor gres = "gpu:a100:1"; change the table [slurm]. '
        "It has: 3 × gpu:rtx8000:1, 2 CPUs, 58.5 GB",
    ]
