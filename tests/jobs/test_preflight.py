"""What a site must offer: every line that can be printed, with Slurm's recorded answers and with a real Slurm."""

from __future__ import annotations

import dataclasses
import os
import socket

import pytest
import tiny

from pipeline.core import disks, files
from pipeline.jobs import plan as plans
from pipeline.jobs import preflight
from pipeline.jobs.slurm import preflight as slurm_preflight
from pipeline.runs.cluster import Slurm

# Slurm 22.05.8, shortened; the second node in the manner of a larger site's
CONFIG = """Configuration data as of 2026-11-23T21:25:00
AccountingStorageEnforce = associations,limits,qos
AccountingStorageType   = accounting_storage/slurmdbd
ClusterName             = devcluster
MaxArraySize            = 1001
PreemptParameters       = (null)
SlurmctldParameters     = preempt_send_user_signal,enable_configless
SLURM_VERSION           = 22.05.8

Slurmctld(primary) at vm is UP
"""
PARTITION = (
    "PartitionName=main AllowGroups=ALL AllowAccounts=ALL AllowQos=normal,long AllocNodes=ALL Default=YES QoS=N/A "
    "DefaultTime=01:00:00 MaxNodes=UNLIMITED MaxTime=7-00:00:00 MinNodes=0 Nodes=gpu[1-3] State=UP TotalCPUs=6 "
    "TotalNodes=3 TRES=cpu=6,mem=180000M,node=3,billing=6,gres/gpu=3"
)
NODE = (
    "NodeName=gpu1 Arch=x86_64 CoresPerSocket=1  CPUAlloc=0 CPUEfctv=2 CPUTot=2 CPULoad=0.03 AvailableFeatures=(null) "
    "ActiveFeatures=(null) Gres=gpu:rtx8000:1 NodeAddr=127.0.0.1 NodeHostName=gpu1 Port=17001 Version=22.05.8 "
    "OS=Linux 6.18.44 #1 SMP PREEMPT_DYNAMIC @0  RealMemory=60000 AllocMem=0 FreeMem=23219 Sockets=2 Boards=1 "
    "State=IDLE ThreadsPerCore=1 TmpDisk=0 Weight=1 Owner=N/A MCS_label=N/A Partitions=main,urgent  "
    "CfgTRES=cpu=2,mem=60000M,billing=2,gres/gpu=1 AllocTRES= CapWatts=n/a "
)
BIG = (
    "NodeName=big1 CPUEfctv=64 CPUTot=64 AvailableFeatures=a100,nvlink Gres=gpu:a100:4(S:0,2-3),mps:400(S:0-1) "
    "NodeHostName=big1 RealMemory=515000 MemSpecLimit=1024 State=MIXED Partitions=main "
)
WANTED = Slurm(gres="gpu:rtx8000:1", cpus=2, memory_gb=32.0)


class Fake:
    """Slurm's tools as scripts that print the text files in their folder, or fail where there is none."""

    def __init__(self, folder, monkeypatch):
        self.folder = folder
        self.say(config=CONFIG, partition=PARTITION, node=NODE, sacct="", sacctmgr="lab||normal,long\nother|urgent|\n")
        self.say(default="lab|\n")
        scontrol = 'for word in config partition node; do case "$*" in *$word*) said=$word;; esac; done\n'
        default = 'case "$*" in *defaultaccount) said=default;; esac\n'
        for tool in (*slurm_preflight.TOOLS, "sacct", "sacctmgr"):
            said = f"said={tool}\n{ {'scontrol': scontrol, 'sacctmgr': default}.get(tool, '') }"
            (folder / tool).write_text(
                f"#!/bin/sh\n{said}echo $said >>{folder}/calls\n"
                f'cat "{folder}/$said.txt" 2>/dev/null || {{ echo "$said: error: no" >&2; exit 1; }}\n'
            )
            (folder / tool).chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")

    def say(self, **texts):
        for name, text in texts.items():
            (self.folder / f"{name}.txt").write_text(text)

    def calls(self):
        return (self.folder / "calls").read_text().split()


@pytest.fixture
def fake(tmp_path, monkeypatch):
    (tmp_path / "bin").mkdir()
    return Fake(tmp_path / "bin", monkeypatch)


def problems(folder, **changes):
    slurm = dataclasses.replace(WANTED, **{"shared_disks": True, **changes})
    return preflight.problems(tiny.make_cluster(folder, executor="slurm", slurm=slurm))


def test_a_site_that_offers_all_has_no_problem_after_a_dozen_calls_at_most(fake, tmp_path):
    assert problems(tmp_path) == []
    assert fake.calls()[:6] == ["config", "partition", "node", "sacct", "sacctmgr", "default"]
    assert len(fake.calls()) <= 12
    assert not (tmp_path / "runs").exists() and not list(tmp_path.glob(".*"))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"partition": "gpus"}, "there is no partition 'gpus'; name another as slurm.partition, of: main"),
        ({"hours": 200.0}, "slurm.hours is 200, partition main allows 168; make it 168 or less"),
        ({"qos": "huge"}, "partition main does not admit 'huge'; it admits normal,long"),
        (
            {"memory_gb": 64.0},
            "no node of partition main meets memory_gb = 64; change the table [slurm]. "
            "It has: 1 × gpu:rtx8000:1, 2 CPUs, 58.5 GB",
        ),
        ({"gres": "gpu:a100:1", "cpus": 3}, 'meets cpus = 3 nor gres = "gpu:a100:1"; change'),
        ({"gres": "gpu:2"}, 'meets gres = "gpu:2"; change'),
        ({"constraint": "volta"}, 'meets constraint = "volta"; change'),
        ({"account": "nobody"}, "slurm.account is 'nobody'; user"),
        ({"account": "nobody"}, "may use: lab"),
    ],
)
def test_what_the_site_does_not_offer_is_named_with_its_value(fake, tmp_path, changes, said):
    assert said in "\n".join(problems(tmp_path, **changes))


@pytest.mark.parametrize(
    "changes",
    [
        {"gres": "gpu"},
        {"gres": "gpu:1"},
        {"gres": ""},
        {"gres": "gres/gpu:rtx8000"},
        {"memory_gb": 58.5},
        {"partition": "main"},
        {"account": "lab", "qos": "long"},
        {"constraint": "[rack1*2&rack2]"},
    ],
)
def test_what_the_site_offers_is_no_problem(fake, tmp_path, changes):
    assert problems(tmp_path, **changes) == []


def test_nodes_of_a_larger_site(fake, tmp_path):
    fake.say(node=f"{NODE}\n{BIG}\n")
    big = {"gres": "gpu:a100:4", "cpus": 64, "memory_gb": 500.0}
    assert problems(tmp_path, **big, constraint="volta|a100&nvlink") == []
    assert problems(tmp_path, gres="gpu:3,mps:100") == []
    assert 'constraint = "volta&a100"' in problems(tmp_path, **big, constraint="volta&a100")[0]
    assert 'gres = "gpu:a100:5"' in problems(tmp_path, gres="gpu:a100:5")[0]
    (said,) = problems(tmp_path, gres="gpu:rtx8000:1", cpus=64)
    assert 'all at once: cpus = 64, memory_gb = 32, gres = "gpu:rtx8000:1"' in said
    assert "1 × gpu:a100:4,mps:400, 64 CPUs, 502.9 GB, features a100,nvlink" in said


@pytest.mark.parametrize("state", ["DOWN*", "IDLE+DRAIN", "MIXED+DRAIN+INVALID_REG"])
def test_nodes_out_of_service_do_not_count(fake, tmp_path, state):
    fake.say(node=NODE.replace("State=IDLE", f"State={state}") + "Reason=bad disk State=IDLE [root@2026]")
    assert f"(gpu1 is {state}: bad disk State=IDLE)" in problems(tmp_path)[0]


@pytest.mark.parametrize("state", ["IDLE+CLOUD+POWERED_DOWN", "ALLOCATED", "IDLE~", "MIXED+RESERVED"])
def test_nodes_that_work_or_sleep_count(fake, tmp_path, state):
    fake.say(node=NODE.replace("State=IDLE", f"State={state}"))
    assert problems(tmp_path) == []


def test_partitions_that_cannot_be_used(fake, tmp_path):
    fake.say(partition=PARTITION.replace("State=UP", "State=DRAIN"))
    assert "partition main is DRAIN; wait until it is UP" in problems(tmp_path)[0]
    fake.say(partition=PARTITION.replace("Default=YES", "Default=NO"))
    assert problems(tmp_path) == ["the site has no default partition; name one as slurm.partition, of: main"]
    fake.say(partition=PARTITION.replace("MaxTime=7-00:00:00", "MaxTime=UNLIMITED"), node="")
    assert "no node of partition main meets" in problems(tmp_path, hours=9999.0)[0]


def test_more_runs_in_a_job_than_it_has_gpus(fake, tmp_path):
    fake.say(node=f"{NODE}\n{BIG}\n")
    assert problems(tmp_path, gres="gpu:a100:4", runs_per_job=4) == []
    slurm = dataclasses.replace(WANTED, gres="gpu:a100:2", runs_per_job=4, shared_disks=True)
    (said,) = preflight.problems(tiny.make_cluster(tmp_path, executor="slurm", slurm=slurm, device="cuda"))
    assert "runs_per_job is 4, and a job with gres = 'gpu:a100:2' has 2 GPUs; request as many, or set it to 2" in said


def test_a_path_that_slurm_would_change(fake, tmp_path):
    """A job whose output has no folder fails without a word: Slurm takes %x for the job's name."""
    for name, said in (("50%x", "50%x/runs: Slurm replaces % and what follows"), ("50 x", "")):
        (tmp_path / name).mkdir()
        found = "\n".join(problems(tmp_path / name))
        assert said in found and bool(said) == bool(found)


def test_missing_tools(fake, tmp_path, monkeypatch):
    (fake.folder / "srun").unlink()
    monkeypatch.setenv("PATH", str(fake.folder))
    assert problems(tmp_path) == ["not on PATH: srun; run this on a login node, or load the site's Slurm module"]


def test_a_controller_that_does_not_answer(fake, tmp_path, monkeypatch):
    (fake.folder / "config.txt").unlink()
    assert problems(tmp_path) == ["Slurm does not answer: scontrol show failed: config: error: no"]
    (fake.folder / "scontrol").write_text("#!/bin/sh\nexec sleep 30\n")
    monkeypatch.setattr(slurm_preflight.records, "SECONDS", 0.1)
    assert "did not answer within" in problems(tmp_path)[0]


def test_accounting(fake, tmp_path):
    (fake.folder / "sacct.txt").unlink()
    (said,) = problems(tmp_path)
    assert "accounting does not answer" in said and "set slurm.accounting = false" in said
    assert problems(tmp_path, accounting=False) == []
    fake.say(sacct="", default="|\n")
    assert "has no default account; name one as slurm.account, of: lab" in problems(tmp_path)[0]
    assert problems(tmp_path, account="lab") == []
    fake.say(sacctmgr="")
    assert "does not know user" in problems(tmp_path)[0]
    fake.say(config=CONFIG.replace("associations,limits,qos", "none"))
    assert problems(tmp_path) == []
    (fake.folder / "default.txt").unlink()
    (fake.folder / "sacctmgr.txt").unlink()  # not permitted
    assert problems(tmp_path, account="any") == []


def test_disks_of_one_machine_alone(fake, tmp_path, monkeypatch):
    mounts = tmp_path / "mounts"
    monkeypatch.setattr(disks, "MOUNTS", mounts)
    mounts.write_text(f"/dev/sda / ext4 rw 0 0\nnas:/x {tmp_path} nfs4 rw 0 0\nt {tmp_path}/my\\040runs xfs rw 0 0\n")
    assert problems(tmp_path, shared_disks=False) == []
    cluster = tiny.make_cluster(tmp_path, executor="slurm", slurm=WANTED, runs=str(tmp_path / "my runs" / "r"))
    (said,) = preflight.problems(cluster)
    assert said.startswith(f"runs ({tmp_path}/my runs/r): on a disk of this machine alone, by its type (xfs at")
    assert "slurm.shared_disks = true" in said
    mounts.write_text("/dev/sda / ext4 rw 0 0\n")
    (said,) = problems(tmp_path, shared_disks=False)
    assert all(f"{name} ({tmp_path}/{name})" in said for name in ("runs", "shards", "weights"))
    assert problems(tmp_path, shared_disks=True) == []
    fake.say(node=NODE.replace("NodeHostName=gpu1", f"NodeHostName={socket.gethostname()}"))
    assert problems(tmp_path, shared_disks=False) == []


def test_a_runs_folder_that_cannot_be_written_or_locked(tmp_path, monkeypatch):
    assert preflight.problems(tiny.make_cluster(tmp_path)) == []
    (tmp_path / "file").write_text("")
    (said,) = preflight.problems(tiny.make_cluster(tmp_path, runs=str(tmp_path / "file" / "runs")))
    assert f"{tmp_path}/file cannot be written" in said

    def refuse(*_):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(files.fcntl, "flock", refuse)
    assert (
        "files cannot be locked on that disk (No locks available)" in preflight.problems(tiny.make_cluster(tmp_path))[0]
    )
    monkeypatch.setattr(files.fcntl, "flock", lambda *_: None)
    assert "file locks do not hold" in preflight.problems(tiny.make_cluster(tmp_path))[0]
    assert not [path for path in os.listdir(tmp_path) if path.startswith(".")]


def test_what_the_plan_needs_is_in_the_same_list(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    cluster = tiny.make_cluster(tmp_path)
    plan = plans.make_plan("main", cluster, datasets=["isic"], seeds=1)
    assert preflight.problems(cluster, plan) == [
        "shards are missing; make them: python -m pipeline.shard isic --raw DIR --size 384"
    ]
    for planned in plan.runs.values():
        planned.state = "missing"
    assert "pipeline.prefetch --tags resnet50.a1_in1k" in preflight.problems(cluster, plan)[1]


def test_a_full_disk_counts_checkpoints_that_are_there_already(tmp_path, monkeypatch):
    cluster = tiny.make_cluster(tmp_path)
    plan = plans.make_plan("main", cluster, datasets=["isic"], seeds=1)
    usage = preflight.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(preflight.shutil, "disk_usage", lambda _: usage._replace(free=10**9))
    (said, _) = preflight.problems(cluster, plan)
    assert "1.0 GB are free, the plan takes up to" in said and "--jobs" in said
    planned = next(iter(plan.runs.values()))
    planned.state = "interrupted"
    planned.run.folder.mkdir(parents=True)
    with open(planned.run.folder / "checkpoint-1-abc.pt", "wb") as file:
        file.truncate(10**11)  # sparse
    assert not any("the plan takes" in line for line in preflight.problems(cluster, plan))
