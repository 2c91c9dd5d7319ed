"""A run that began on one GPU model and is now on another: it waits for its own, restarts, or continues there."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import tiny

from pipeline.jobs import execute, fanout, gpus, signals, submissions
from pipeline.jobs.arrays import job_arrays, jobs_of
from pipeline.jobs.gpus import name_in_slurm, request_of
from pipeline.jobs.plan import PlannedRun
from pipeline.jobs.signals import REQUEUE
from pipeline.jobs.start import OtherCard, begin
from pipeline.runs.cluster import Cluster, Slurm

RTX = {"device": "cuda", "model": "Quadro RTX 8000", "precision": "float16", "threads": 1}
A100 = {**RTX, "model": "NVIDIA A100-SXM4-80GB", "precision": "bfloat16"}


class shards:
    name, fingerprint = "tiny", "0" * 16


PARTITION = "gpu:rtx8000:1|(null)|n[1-3]\ngpu:a100:4(S:0-1)|x,a100|n4,n[6-7]\n(null)|cpu|c[1-9]\n"


def nodes(gres: str, features: str = "(null)", partition: str = PARTITION) -> str:
    """As the batch shell asks sinfo: this node, then the partition's."""
    return f"{gres}|{features}|n1\n{partition}"


@pytest.mark.parametrize(
    ("model", "gres", "features", "name"),
    [
        ("Quadro RTX 8000", "gpu:rtx8000:1(S:0-1),mps:400", "(null)", "gres:rtx8000"),
        ("anything at all", "gpu:big:4", "a100", "gres:big"),
        ("NVIDIA A100-SXM4-80GB", "gpu:v100:2,gpu:a100:2", "a100", ""),
        ("NVIDIA A100-SXM4-80GB", "gpu:4", "nvidia,a100,a100_sxm4_80gb,x8", "feature:a100_sxm4_80gb"),
        ("NVIDIA H100 80GB HBM3", "gpu:4", "nvidia,a100", ""),
        ("NVIDIA H100 80GB HBM3", "(null)", "(null)", ""),
    ],
)
def test_the_sites_nodes_say_how_slurm_names_a_gpu(monkeypatch, model, gres, features, name):
    monkeypatch.setenv(gpus.NODES, nodes(gres, features))
    assert name_in_slurm(model) == name
    monkeypatch.delenv(gpus.NODES)
    assert name_in_slurm(model) == ""


@pytest.mark.parametrize(
    ("name", "sbatch", "request_"),
    [
        ("gres:a100", (), "ExcNodeList=n[1-3],c[1-9]"),
        ("gres:rtx8000", ("exclude=n2", "mail-type=FAIL"), "ExcNodeList=n2,n4,n[6-7],c[1-9]"),
        ("gres:h100", (), ""),
        ("feature:a100", (), ""),  # of a node whose GPUs have a type
        ("feature:cpu", (), "ExcNodeList=n[1-3],n4,n[6-7]"),
        ("", (), ""),
    ],
)
def test_what_keeps_a_job_to_the_nodes_that_have_it(monkeypatch, name, sbatch, request_):
    monkeypatch.setenv(gpus.NODES, nodes("gpu:a100:4"))
    assert request_of(name, Slurm(sbatch=sbatch)) == request_


@pytest.fixture
def begun(tmp_path, monkeypatch):
    """A run that began on an RTX 8000, has a checkpoint and is now in a Slurm job on a node with A100s."""
    monkeypatch.setenv(gpus.NODES, nodes("gpu:rtx8000:1"))
    monkeypatch.setenv(signals.BATCH_SHELL, str(tmp_path / "request"))
    site = tiny.make_cluster(tmp_path, executor="slurm", slurm=Slurm(gres="gpu:1"))
    run = tiny.announce(tiny.make_pretrain(shards), site)
    monkeypatch.setattr("pipeline.jobs.start.library_versions", lambda device: {})
    assert begin(run, RTX, {}, site).card == "gres:rtx8000"
    (run.folder / "checkpoint-0000000120-ab.pt").touch()
    monkeypatch.setenv(gpus.NODES, nodes("gpu:a100:4"))
    return run, site


def chosen(site: Cluster, how: str) -> Cluster:
    return dataclasses.replace(site, on_other_card=how)


def test_a_run_waits_for_its_own_and_nothing_of_it_changes(begun, monkeypatch):
    run, site = begun
    assert site.on_other_card == "wait"
    before = run["start"].read_bytes()
    with pytest.raises(OtherCard, match="began on Quadro RTX 8000, and this node has NVIDIA A100") as caught:
        begin(run, A100, {}, site)
    assert caught.value.request == "ExcNodeList=n4,n[6-7],c[1-9]"
    assert run["start"].read_bytes() == before and run.reached() == 120

    run["waits"].write_text("")
    assert begin(run, RTX, {}, site).hardware == RTX and not run["waits"].exists()


def test_a_name_that_slurm_did_not_say_at_the_first_start_is_noted_at_a_later_one(begun, monkeypatch):
    run, site = begun
    run["start"].unlink()
    monkeypatch.setenv(gpus.NODES, f"\n{PARTITION}")
    assert begin(run, RTX, {}, site).card == "" and run.start().card == ""
    monkeypatch.setenv(gpus.NODES, nodes("gpu:rtx8000:1"))
    assert begin(run, RTX, {}, site).card == "gres:rtx8000" and run.start().card == "gres:rtx8000"


def test_where_the_site_cannot_tell_them_apart_it_fails_and_names_the_ways(begun, monkeypatch):
    run, site = begun
    for gres in ("gpu:rtx8000:1", "gpu:4"):  # two models of one type; the second node names none
        monkeypatch.setenv(gpus.NODES, nodes(gres))
        if gres == "gpu:4":
            monkeypatch.delenv(signals.BATCH_SHELL)  # a process that no job started
        with pytest.raises(ValueError, match="started with device Quadro.*set on_other_card in the cluster file"):
            begin(run, A100, {}, site)


def test_it_restarts(begun, capsys):
    run, site = begun
    start = begin(run, A100, {}, chosen(site, "restart"))
    assert (start.hardware, start.card, start.devices) == (A100, "gres:a100", ())
    assert run.start() == start and not run.checkpoints() and "restarts on NVIDIA A100" in capsys.readouterr().out


def test_it_continues_there_in_its_own_precision_and_says_so(begun):
    run, site = begun
    start = begin(run, A100, {}, chosen(site, "go_on"))
    assert start.hardware == {**RTX, "model": A100["model"]} and run.start() == start and run.reached() == 120
    devices = [{"device": RTX["model"], "step": 0}, {"device": A100["model"], "step": 120}]
    assert list(start.devices) == start.notes()["devices"] == devices
    (run.folder / "checkpoint-0000000150-ab.pt").touch()
    again = begin(run, RTX, {}, chosen(site, "go_on"))
    assert list(again.devices) == [*devices, {"device": RTX["model"], "step": 150}]


def test_once_continued_on_another_model_it_waits_for_that_one(begun, monkeypatch):
    run, site = begun
    assert begin(run, A100, {}, chosen(site, "go_on")).card == "gres:a100"
    monkeypatch.setenv(gpus.NODES, nodes("gpu:rtx8000:1"))
    with pytest.raises(OtherCard, match="began on NVIDIA A100.*has Quadro RTX 8000") as caught:
        begin(run, RTX, {}, site)
    assert caught.value.waits_for == f"{A100['model']} (gres:a100)"
    assert caught.value.request == "ExcNodeList=n[1-3],c[1-9]"


def test_a_job_that_cannot_be_requeued_does_not_wait(begun):
    run, site = begun
    with pytest.raises(ValueError, match="started with device Quadro.*set on_other_card in the cluster file"):
        begin(run, A100, {}, dataclasses.replace(site, slurm=Slurm(requeues=0)))


def test_a_gpu_and_a_cpu_are_never_exchanged(begun):
    run, site = begun
    for how in ("wait", "restart", "go_on"):
        with pytest.raises(ValueError, match="started with device Quadro RTX 8000"):
            begin(run, {**RTX, "device": "cpu", "model": "a CPU"}, {}, chosen(site, how))


@pytest.mark.parametrize(("restarts", "says"), [("0", "the job is requeued"), ("1000", "the next launch sends it")])
def test_a_run_that_waits_has_not_failed_and_tells_the_batch_shell(begun, monkeypatch, capsys, restarts, says):
    run, site = begun

    def train(run, stop):
        return begin(run, A100, {}, site)

    monkeypatch.setattr(execute, "_train", train)
    monkeypatch.setenv("SLURM_RESTART_COUNT", restarts)
    assert execute.execute_run(run) == REQUEUE
    assert f"has NVIDIA A100-SXM4-80GB; {says}" in capsys.readouterr().out
    assert run.state() == "interrupted" and run["waits"].read_text() == "Quadro RTX 8000 (gres:rtx8000)\n"
    assert Path(site.runs).parent.joinpath("request").read_text() == "ExcNodeList=n4,n[6-7],c[1-9]\n"


def test_a_fan_out_does_the_others_first_and_those_that_wait_are_no_deaths(tmp_path, monkeypatch):
    site = tiny.make_cluster(tmp_path, ray=False)
    specs = [tiny.make_finetune(shards, None, seed=seed) for seed in (77, 78)]
    runs = [tiny.announce(spec, site) for spec in specs]
    planned = [PlannedRun(run, spec, "pending", None) for run, spec in zip(runs, specs, strict=True)]
    (array,) = job_arrays("g", jobs_of(planned), waits_for=set(), limit=10, parallelism=1)
    folder = submissions.publish(Path(site.runs), array, tmp_path).task_folder(0)
    runs[0]["waits"].write_text("of an earlier start")
    passes = []

    def run_trials(folders, **options):
        passes.append([Path(path).name for path in folders])
        runs[0]["waits"].write_text("NVIDIA A100 (gres:a100)\n")
        runs[1]["error"].write_text("ValueError: x\n")

    monkeypatch.setattr(fanout, "engine", lambda ray: run_trials)
    assert fanout.execute_fan_out(folder, lambda: False) == REQUEUE
    assert passes == [[run.id for run in runs]]
    assert [run.state() for run in runs] == ["pending", "failed"]
