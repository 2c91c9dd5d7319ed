"""`init` makes a working folder: a cluster file that fits the site, a grid that is one, and nothing overwritten."""

from __future__ import annotations

import dataclasses
import re

import pytest
from commands import command

from pipeline.cli import working_folder
from pipeline.core import toml
from pipeline.jobs.slurm import site as sites
from pipeline.jobs.slurm.preflight import slurm_problems
from pipeline.runs import cluster
from pipeline.runs.cluster import load_cluster
from pipeline.study.grid_file import read_grid

CONFIG = "TmpFS                   = /local\nMaxArraySize            = 1001\n"
PARTITIONS = """\
PartitionName=cpu Default=YES MaxTime=UNLIMITED State=UP Nodes=c[1-2]
PartitionName=gpu Default=NO MaxTime=2-00:00:00 State=UP Nodes=g[1-3]
PartitionName=old Default=NO MaxTime=1-00:00:00 State=DOWN Nodes=o1
PartitionName=short Default=NO MaxTime=00:10:00 State=UP Nodes=g[1-3]
PartitionName=empty Default=NO MaxTime=1-00:00:00 State=UP
"""
GPU = "CPUEfctv=64 CPUTot=64 NodeHostName=gX State=IDLE Partitions=gpu,short TmpDisk=900000 "
NODES = f"""\
NodeName=c1 CPUTot=32 Gres=(null) RealMemory=128000 State=IDLE Partitions=cpu TmpDisk=0
NodeName=g1 {GPU}Gres=gpu:h100:4(S:0-1) RealMemory=515000 MemSpecLimit=1024
NodeName=g2 {GPU}Gres=gpu:h100:4(S:0-1) RealMemory=257000 MemSpecLimit=1024
NodeName=g3 {GPU.replace("IDLE", "DOWN*")}Gres=gpu:a100:8 RealMemory=2000000
NodeName=o1 CPUTot=8 Gres=gpu:1 RealMemory=16000 State=IDLE Partitions=old
"""


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """Slurm's tools as scripts that print the texts in their folder, or fail where there is none."""
    folder = tmp_path / "bin"
    folder.mkdir()
    scontrol = 'for word in config partition node; do case "$*" in *$word*) said=$word;; esac; done\n'
    for tool in ("sbatch", "squeue", "scontrol", "srun", "sacct", "sacctmgr"):
        text = f"#!/bin/sh\nsaid={tool}\n{scontrol if tool == 'scontrol' else ''}cat {folder}/$said.txt || exit 1\n"
        (folder / tool).write_text(text)
        (folder / tool).chmod(0o755)
    says = {"config": CONFIG, "partition": PARTITIONS, "node": NODES, "sacct": "", "sacctmgr": "lab|\nlab|200\n"}
    for name, text in says.items():
        (folder / f"{name}.txt").write_text(text)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    return folder


@pytest.fixture
def no_slurm(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))


def test_a_machine_without_slurm_gets_files_that_are_read(no_slurm, tmp_path):
    done = command("init", "work", cwd=tmp_path)
    assert done.returncode == 0 and "there is no Slurm here" in done.stdout
    work = tmp_path / "work"
    assert sorted(path.name for path in work.rglob("*") if path.is_file()) == ["README.md", "my_grid.toml", "site.toml"]
    assert load_cluster(str(work / "slurm" / "site.toml")) == dataclasses.replace(load_cluster("local"), ray=False)
    assert read_grid(work / "my_grid.toml").datasets == ("my_images",)
    lines = (work / "README.md").read_text().splitlines()
    assert len(lines) == 5 and all(line.startswith(f"{number}. ") for number, line in enumerate(lines, start=1))


def test_the_cluster_file_is_what_slurm_says_and_its_own_preflight_has_nothing_against_it(slurm, tmp_path):
    done = command("init", "work", cwd=tmp_path)
    assert done.returncode == 0 and "Slurm answers: gpu: gpu:h100:1, 8 CPUs, 62 GB, 48 h" in done.stdout
    text = (tmp_path / "work" / "slurm" / "site.toml").read_text()
    found = load_cluster(str(tmp_path / "work" / "slurm" / "site.toml"))
    assert (found.executor, found.scratch, found.gpu_model) == ("slurm", "/local/cass-pipeline", "H100-80GB")
    wanted = {"partition": "gpu", "gres": "gpu:h100:1", "cpus": 8, "memory_gb": 62, "hours": 48.0, "account": "lab"}
    wanted |= {"max_jobs": 200, "accounting": True, "signal_seconds": 300}
    assert {name: getattr(found.slurm, name) for name in wanted} == wanted
    assert "# other partition: short: gpu:h100:1" in text and "# other partition: cpu: no GPU" in text
    assert not re.search(r"partition: (old|empty)", text) and "# a node has 878 GB at /local\n" in text
    assert slurm_problems(dataclasses.replace(found.slurm, account=""))[0] == []


def test_the_numbers_of_other_partitions_fit_them_too(slurm, tmp_path):
    for offer in sites.ask_site().offers:
        answers = dataclasses.replace(sites.ask_site(), offers=[offer], accounts=[])
        found = cluster.from_json(toml.tables(working_folder.slurm_text(answers)))
        assert slurm_problems(found.slurm)[0] == [], offer
    assert found.slurm.partition == "cpu" and (found.device, found.slurm.gres, found.slurm.hours) == ("cpu", "", 168)


@pytest.mark.parametrize(
    ("gres", "model"),
    [("gpu:rtx8000:1", "RTX8000"), ("gpu:rtx_3090:1", "RTX3090"), ("gpu:a100:1", ""), ("gpu:1", ""), ("", "")],
)
def test_a_gpu_model_is_named_where_one_alone_can_be_meant(gres, model):
    offer = sites.Offer(partition="p", is_default=True, gres=gres, gpus=1, cpus=1, memory_gb=1, hours=1, disk_gb=0)
    assert offer.gpu_model == model


def test_a_slurm_that_does_not_answer_is_said_and_leaves_this_machine(slurm, tmp_path):
    (slurm / "config.txt").unlink()
    done = command("init", "work", cwd=tmp_path)
    assert done.returncode == 0 and "Slurm does not answer (scontrol show failed" in done.stdout
    assert load_cluster(str(tmp_path / "work" / "slurm" / "site.toml")).executor == "local"


def test_sites_without_accounting_and_questions_get_a_file_too(slurm, tmp_path):
    for name in ("sacct", "sacctmgr"):
        (slurm / f"{name}.txt").unlink()
    assert command("init", "work", cwd=tmp_path).returncode == 0
    found = load_cluster(str(tmp_path / "work" / "slurm" / "site.toml")).slurm
    assert (found.accounting, found.account, found.max_jobs) == (False, "", 0)


def test_a_partition_without_a_whole_minute_is_left_out(slurm, tmp_path):
    (slurm / "partition.txt").write_text(PARTITIONS.replace("2-00:00:00", "00:00:30").replace("00:10:00", "00:01:00"))
    (slurm / "node.txt").write_text(NODES.replace("CPUEfctv=64", "CPUEfctv=4"))
    done = command("init", "work", cwd=tmp_path)
    assert done.returncode == 0 and "Slurm answers: short: gpu:h100:1, 1 CPU, " in done.stdout
    found = load_cluster(str(tmp_path / "work" / "slurm" / "site.toml")).slurm
    assert (found.hours, found.signal_seconds) == (0.01, 15)


def test_nothing_is_overwritten_and_what_lacks_is_added(no_slurm, tmp_path):
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "my_grid.toml").write_text("mine")
    done = command("init", "work", cwd=tmp_path)
    assert "there already, left as it is: work/my_grid.toml" in done.stdout
    assert (tmp_path / "work" / "my_grid.toml").read_text() == "mine"
    again = command("init", "work", cwd=tmp_path)
    assert again.returncode == 0 and len(re.findall("there already", again.stdout)) == 3
    (tmp_path / "file").write_text("")
    refused = command("init", "file", cwd=tmp_path)
    assert refused.returncode == 2 and "file is a file; give a folder" in refused.stderr


def test_a_dry_run_prints_the_files_and_writes_nothing(no_slurm, tmp_path):
    done = command("init", "work", "--dry-run", cwd=tmp_path)
    assert done.returncode == 0 and "--- work/slurm/site.toml\n" in done.stdout and "my_images" in done.stdout
    assert not (tmp_path / "work").exists()
