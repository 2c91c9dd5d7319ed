"""Memory before the job: what is counted, what fits, what is refused, and that a finished run's measure replaces it."""

from __future__ import annotations

import dataclasses
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest
import tiny
from commands import command

from pipeline.cli.memory_text import memory_text
from pipeline.cli.status_text import folder_rows
from pipeline.core import files
from pipeline.jobs import footprints, memory
from pipeline.jobs.estimate import estimate
from pipeline.jobs.footprints import Footprint, key_of
from pipeline.jobs.plan import Plan, PlannedRun, make_plan
from pipeline.learn import hardware
from pipeline.rehearsal.cuda import pretended
from pipeline.rehearsal.steps import rehearse_step
from pipeline.runs import cluster as clusters
from pipeline.runs.cluster import Cluster, Slurm
from pipeline.runs.folder import Run
from pipeline.runs.identity import run_id
from pipeline.runs.result import Result
from pipeline.runs.spec import DatasetRef
from pipeline.study import paper, recipes

PRESET = paper.preset("paper")
BRAIN = DatasetRef(name="brain_mri", fingerprint="b" * 16)
GB = 10**9
MADE_UP = Footprint(weights=GB, optimizer=2 * GB, averages=2 * GB, per_image=GB // 2, evaluation=3 * GB, state=3 * GB)
ASSUMED = memory.CONTEXT + memory.WORKSPACE


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def site(tmp_path):
    return tiny.make_cluster(tmp_path, device="cuda", gpu_model="RTX8000")


@pytest.fixture
def made_up(monkeypatch):
    """Every kind of run has the same footprint."""

    class Every(dict):
        def get(self, key, default=None):
            return MADE_UP

    monkeypatch.setattr(memory, "known", Every)


def cass(**changes):
    return dataclasses.replace(recipes.cass(BRAIN, preset=PRESET, seed=77), **changes)


def finetune(**changes):
    return dataclasses.replace(recipes.finetune(BRAIN, paper.RESNET50, preset=PRESET, seed=77), **changes)


def plan_of(site: Cluster, *specs) -> Plan:
    runs = [PlannedRun(Run(Path(site.runs) / run_id(spec)), spec, "missing", None) for spec in specs]
    return Plan("mine", site, PRESET, [], [], runs={planned.run.id: planned for planned in runs})


def test_a_runs_memory_by_hand(site, made_up):
    (kind,) = memory.memory_of(plan_of(site, cass(), cass(seed=78)), site)
    assert (kind.title, kind.batch, kind.precision, kind.runs) == ("CASS, ResNet-50 + ViT B/16", 16, "float16", 2)
    assert kind.bytes == ASSUMED + 1.1 * (5 + 16 / 2) * GB
    assert kind.largest_batch == int(((48 * GB - ASSUMED) / 1.1 - 5 * GB) / (GB / 2)) == 75
    assert kind.counted(75) <= 48 * GB < kind.counted(76)
    assert kind.at_once == 3


def test_evaluation_counts_where_it_takes_more_than_a_step_and_is_added_to_a_cuda_graph(site, made_up):
    kinds = {kind.batch: kind for kind in memory.memory_of(plan_of(site, cass(), cass(batch_size=4)), site)}
    assert kinds[4].bytes == ASSUMED + 1.1 * (5 + 3) * GB  # a step takes 4 / 2
    assert dataclasses.replace(kinds[4], capacity=kinds[4].bytes + 10).largest_batch == 6
    assert dataclasses.replace(kinds[4], capacity=kinds[4].bytes - 1e6).largest_batch == 0
    site = dataclasses.replace(site, cuda_graphs=True)
    (kind,) = memory.memory_of(plan_of(site, cass()), site)
    assert kind.bytes == ASSUMED + 1.1 * (5 + 16 / 2 + 3) * GB
    assert kind.counted(kind.largest_batch) <= 48 * GB < kind.counted(kind.largest_batch + 1)


def test_kinds_differ_in_what_shapes_the_memory_only(site):
    same = [cass(), cass(seed=78, epochs=50), cass(batch_size=32), cass(augment=paper.augmentation(blur=True))]
    assert len({key_of(spec, "float16") for spec in same}) == 1
    other = [cass(image_size=224), cass(average=None), cass(keep_gradients=True), finetune()]
    other += [recipes.dino(BRAIN, b, preset=PRESET, seed=77) for b in paper.STANDARD]
    keys = {key_of(spec, precision) for spec in (cass(), *other) for precision in ("float32", "float16")}
    assert len(keys) == 2 * (len(other) + 1)
    assert key_of(cass(), "float16") == key_of(cass(), "bfloat16")
    kinds = memory.memory_of(plan_of(site, cass(), cass(seed=78), cass(batch_size=32), finetune()), site)
    assert [(kind.batch, kind.runs, kind.is_finetune) for kind in kinds] == [
        (16, 2, False),
        (32, 1, False),
        (16, 1, True),
    ]


def test_the_package_knows_every_kind_of_run_of_the_paper(tmp_path):
    every = footprints.read(footprints.TABLE)
    wanted = footprints.wanted_by(["paper", "cass_vc", "dino_fb"])
    assert {key_of(spec, precision, plain=plain) for spec, precision, plain in wanted} == set(every)
    assert len(every) == 23
    for footprint in every.values():
        assert footprint.per_image > 10**7 and footprint.optimizer > 0.9 * footprint.averages


def test_the_papers_largest_batch_is_next_to_what_is_counted(site):
    found = footprints.known()
    fused, plain = (found[key_of(cass(), "float32", plain=plain)].at(34) for plain in (False, True))
    # 12 layers each keep a matrix of 577 × 577 for each of 12 heads and 34 images
    assert plain - fused == pytest.approx(12 * 12 * 34 * 577**2 * 4, rel=0.05)
    assert f"{fused / 1e9:.1f} GB, {plain / 1e9:.1f} GB where attention keeps its matrix" in memory_text(
        plan_of(site, cass())
    )


def test_what_is_counted_is_linear_in_the_batch():
    spec = dataclasses.replace(recipes.cass(BRAIN, tiny.BACKBONES, preset=PRESET, seed=1), image_size=64, batch_size=24)
    footprint = footprints.count(spec, "float16")
    counted = rehearse_step(spec, precision="float16").peak_bytes
    step = footprint.fixed + 24 * footprint.per_image
    assert step == pytest.approx(counted, rel=0.05)  # what the batch does not change counts more here
    assert footprint.state >= 4 * footprint.averages > 0
    assert footprint.evaluation > footprint.averages  # averaged weights are copied for their statistics


@pytest.mark.parametrize(
    ("batch", "gpu", "needed", "advice"),
    [(80, 48, "51 GB of the 48 GB", "the largest that fits is 75"), (16, 6, "15 GB of the 6 GB", "no batch fits")],
)
def test_what_cannot_fit_is_refused_with_the_batch_and_the_gpu(site, made_up, batch, gpu, needed, advice):
    assert memory.problems(plan_of(site, cass()), site) == []
    site = dataclasses.replace(site, gpu_memory_gb=float(gpu))
    assert memory.problems(plan_of(site, cass(batch_size=batch)), site) == [
        f"CASS, ResNet-50 + ViT B/16: a batch of {batch} in float16 needs {needed} of RTX8000; {advice}: "
        "give the spec smaller batches, or use a GPU with more memory"
    ]


def test_more_trials_than_fit_are_refused(site, made_up):
    site = dataclasses.replace(site, trials_per_gpu=4)
    (line,) = memory.problems(plan_of(site, finetune(), cass()), site)
    assert line.startswith("trials_per_gpu is 4: fine-tune, ResNet-50 in batches of 16 needs 15 GB of the 48 GB")
    assert line.endswith("set trials_per_gpu to 3")


def test_the_hosts_memory_is_compared_with_what_the_job_requests(site, made_up):
    site = dataclasses.replace(site, executor="slurm", trials_per_gpu=2, slurm=Slurm(memory_gb=12))
    host = memory.host_memory(plan_of(site, cass(), finetune()), site)
    assert host is not None and host.bytes == 2 * (memory.PROCESS + 3 * GB) + memory.RAY
    assert host.pixel_map == sum(paper.IMAGES["brain_mri"]) * 384**2 * 3
    (line,) = memory.problems(plan_of(site, finetune()), site)
    assert line.startswith("memory_gb is 12, and a job needs 16 GB of the host's memory")


def test_a_finished_runs_measure_replaces_the_model(site, made_up):
    run = Run(Path(site.runs) / run_id(cass(seed=5)))
    run.announce(cass(seed=5))
    notes = {"gpu_memory": {"allocated": 6 * GB, "reserved": 7 * GB}}
    numbers = {"metrics": {"loss": 1.0}, "seconds": 10.0, "images_per_second": 5.0, "epochs": 1, "best_epoch": None}
    run["weights"].write_bytes(b"")
    software = {"precision": "float16", "threads": 1, "code": "c", "versions": {}}
    run.finish(Result(**numbers, **software, device="Quadro RTX 8000", notes=notes))
    same, other = memory.memory_of(plan_of(site, cass(), cass(batch_size=32)), site)
    assert same.bytes == 7 * GB + memory.CONTEXT and same.measured == 7 * GB
    assert other.measured is None and other.bytes == other.counted(32)
    assert "measured" in memory_text(plan_of(site, cass()))
    (row,) = folder_rows(Path(site.runs), {})
    assert ", 7.0 GB of the GPU" in row["says"]


def test_nothing_is_said_where_the_gpu_is_not_known(site, tmp_path):
    plan = plan_of(site, cass())
    for changes in ({"gpu_model": ""}, {"device": "cpu"}):
        here = dataclasses.replace(site, **changes)
        plan.cluster = here
        assert (memory_text(plan), memory.problems(plan, here), memory.to_count(plan, here)) == ("", [], [])


def test_a_gpu_that_is_not_named_is_counted_in_float32(site):
    here = dataclasses.replace(site, gpu_model="", gpu_memory_gb=10.0)
    assert memory.precision_of(cass(), here) == "float32"
    assert memory.precision_of(cass(), dataclasses.replace(here, precision="bfloat16")) == "bfloat16"
    assert memory.precision_of(cass(precision="float32"), site) == "float32"


def test_the_key_stays_out_of_job_json_while_it_has_its_default():
    assert "gpu_memory_gb" not in clusters.to_json(Cluster())
    assert clusters.to_json(Cluster(gpu_memory_gb=24.0))["gpu_memory_gb"] == 24.0
    with pytest.raises(ValueError, match="gpu_memory_gb is -1; give a number of GB"):
        Cluster(gpu_memory_gb=-1)


def test_every_gpu_model_has_a_precision():
    assert set(clusters.GPU_PRECISIONS) == set(clusters.GPU_MEMORY_GB) >= set(clusters.GPU_PEAKS)


def test_the_peak_of_a_gpu_is_noted_and_a_cpu_has_none():
    cpu = hardware.Hardware(device="cpu", model="a processor", precision="float32", threads=1)
    hardware.reset_peak_memory(cpu)
    assert hardware.peak_memory(cpu) == {}
    with pretended():
        gpu = dataclasses.replace(cpu, device="cuda")
        hardware.reset_peak_memory(gpu)
        assert set(hardware.peak_memory(gpu)) == {"allocated", "reserved"}


OWN_GRID = """
from dataclasses import replace

import tiny
from pipeline.study import recipes

DATASETS, SEEDS, IMAGE_SIZE = ("brain_mri",), 1, 64


def grid(datasets, seeds, preset):
    spec = recipes.cass(datasets[0].ref, tiny.BACKBONES, preset=preset, seed=seeds[0])
    return [replace(spec, image_size=64, batch_size=400_000)]
"""


def test_a_dry_run_counts_a_users_own_kind_once_and_refuses_what_cannot_fit(tmp_path, monkeypatch):
    files.write_text(tmp_path / "own.py", OWN_GRID)
    files.write_text(tmp_path / "site.toml", 'device = "cuda"\ngpu_model = "T4"\nprecision = "float16"\n')
    words = ("--grid", "own.py", "--cluster", "site.toml", "--dry-run")
    done = command("launch", *words, cwd=tmp_path)
    assert done.returncode == 3, done.stderr
    assert "a batch of 400000 in float16 needs" in done.stdout and "of the 16 GB of T4" in done.stdout
    assert "CASS, test_resnet + test_vit" in done.stdout
    assert len(footprints.read(footprints.cache_path())) == 1
    monkeypatch.setattr(footprints, "_environment", None)  # it is not counted again
    assert command("launch", *words, cwd=tmp_path).stdout == done.stdout


def test_what_cannot_be_counted_is_said(tmp_path, monkeypatch):
    spec = recipes.dino(BRAIN, paper.SWIN_B, recipes.FACEBOOK, preset=PRESET, seed=1)
    monkeypatch.setattr(footprints, "count", None)
    (line,) = footprints.count_missing([(dataclasses.replace(spec, image_size=64), "float16")])
    assert line.startswith("the memory of dino_fb, swin_base") and line.count("dino_fb") == 1
    assert "could not be counted: " in line and "its process ended" not in line


def test_the_papers_dry_run_says_what_each_kind_needs(tmp_path, monkeypatch):
    monkeypatch.setattr(footprints, "_environment", None)
    plan = make_plan("paper", dataclasses.replace(clusters.load_cluster("rtx8000"), runs=str(tmp_path / "runs")))
    text = memory_text(plan)
    assert "CASS, ResNet-50 + ViT L/16" in text and "largest batch" in text and "?" not in text
    assert "trials_per_gpu: up to" in text and "host memory: up to" in text and "34 on 48 GB" in text


def test_what_make_gpu_measured_replaces_both_models(site, made_up, tmp_path):
    key = key_of(cass(), "float16")
    model = {"gpu": "Quadro RTX 8000", "teraflops": {"float16": 40.36}, "reserved": [[key, 16, 9 * GB]]}
    files.write_json(tmp_path / "gpu.json", {"model": model})
    here = dataclasses.replace(site, gpu_measured=str(tmp_path / "gpu.json"))
    same, other = memory.memory_of(plan_of(here, cass(), cass(batch_size=32)), here)
    assert same.measured == 9 * GB and other.measured is None
    found = estimate(plan_of(here, cass(epochs=1)), here).pretrain
    assert found.runs == {"by the measured step of Quadro RTX 8000": 1}
    assert found.hours == pytest.approx(5141 / 100 / 3600, rel=1e-3)  # 403.6 GFLOP an image: 100 images a second
    for text, said in (("{}", "KeyError|model"), ("[1]", "gpu.json")):
        files.write_text(tmp_path / "gpu.json", text)
        with pytest.raises(ValueError, match=said):
            memory.memory_of(plan_of(here, cass()), here)
    missing = dataclasses.replace(site, gpu_measured="nowhere.json")
    with pytest.raises(ValueError, match="gpu_measured is nowhere.json, which does not exist"):
        memory.memory_of(plan_of(missing, cass()), missing)


def test_a_machine_without_torch_has_a_cache_of_its_own(monkeypatch):
    def absent(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr(footprints, "version", absent)
    assert footprints.cache_path().name == "footprints-torch-none-timm-none.json"
