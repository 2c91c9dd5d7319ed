"""GPU-hours and storage of what is to do, against arithmetic by hand."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path

import pytest
import tiny

from pipeline.cli.estimate_text import estimate_lines
from pipeline.core import files
from pipeline.jobs import plan as plans
from pipeline.jobs.costs import DERIVED, MODELLED, TABLE_2, UNKNOWN
from pipeline.jobs.estimate import estimate
from pipeline.jobs.plan import Plan, PlannedRun, assign_milestones
from pipeline.runs.cluster import Slurm
from pipeline.runs.folder import Run
from pipeline.runs.identity import run_id
from pipeline.runs.result import Result
from pipeline.runs.spec import DatasetRef
from pipeline.study import paper, recipes

PRESET = paper.preset("paper")
HOURS = {"autoimmune": 0.35, "dermofit": 1 + 11 / 60, "brain_mri": 7 + 11 / 60, "isic": 29 + 58 / 60}
BRAIN = DatasetRef(name="brain_mri", fingerprint="b" * 16)
R50, VIT = 25_560_000, 86_860_000


def plan_of(cluster, *chosen, state="missing"):
    runs = {}
    for spec in chosen:
        parent = getattr(spec, "pretrain", None)
        run = Run(Path(cluster.runs) / run_id(spec))
        runs[run.id] = PlannedRun(run, spec, state, run_id(parent) if parent else None)
    return Plan("mine", cluster, PRESET, [], [], runs=runs)


def cass(ref=BRAIN, backbones=paper.STANDARD, **changes):
    return dataclasses.replace(recipes.cass(ref, backbones, preset=PRESET, seed=77), **changes)


def finetune(ref=BRAIN, backbone=paper.RESNET50, **changes):
    return dataclasses.replace(recipes.finetune(ref, backbone, preset=PRESET, seed=77), **changes)


def shards(cluster, ref, *, train, val=0, unlabelled=0, size=384):
    """A manifest that tells its counts, and no images."""
    counts = {"train": {"pictures": train, "unlabelled": unlabelled}, "val": {"pictures": val, "unlabelled": 0}}
    value = {"name": ref.name, "fingerprint": ref.fingerprint, "settings": {"size": size}, "counts": counts}
    value["classes"] = []
    folder = Path(cluster.shards) / f"{ref.name}-{size}-image-{ref.fingerprint[:8]}"
    files.write_json(folder / "manifest.json", value)


def finish(cluster, spec, *, speed, seconds=100.0, epochs=1, device="cpu", model="a processor", size=0):
    run = Run(Path(cluster.runs) / run_id(spec))
    run.announce(spec)
    files.write_json(run["start"], {"hardware": {"device": device, "model": model}})
    if size:
        run["weights"].write_bytes(bytes(size))
    result = Result(
        metrics={}, seconds=seconds, images_per_second=speed, epochs=epochs, best_epoch=None, device=model,
        precision="float32", threads=1, code="", versions={},
    )  # fmt: skip
    run.finish(result)
    return run


@pytest.fixture
def site(tmp_path):
    return tiny.make_cluster(tmp_path, device="auto", jobs=2)


def test_the_papers_hours_add_up(site):
    out = estimate(plans.make_plan("main", site), site)
    assert out.pretrain.runs == {TABLE_2: 60}
    assert out.finetune.runs == {DERIVED: 300}
    assert estimate_lines(out)[0].startswith("GPU-hours: 1,594 of pretraining (by Table 2), ")


def test_both_readings_of_dinos_hours(site):
    out = estimate(plans.make_plan("main", site), site)
    dino = 1 + 13 / 60 + 3 + 9 / 60 + 26 + 21 / 60 + 109 + 21 / 60
    assert out.pretrain.hours == pytest.approx(5 * sum(HOURS.values()) + 10 * dino)  # study/experiments.py: 1,600
    assert out.dino_excess == pytest.approx(5 * dino)  # and 900 without
    assert "  894 of pretraining if Table 2's hours of DINO are those of both backbones, not of each" in estimate_lines(
        out
    )


def test_hours_follow_epochs_and_images(site):
    shards(site, BRAIN, train=1000, val=90, unlabelled=200)
    out = estimate(plan_of(site, cass(epochs=50), finetune(label_fraction=0.1)), site)
    an_epoch_of_one = HOURS["brain_mri"] / 100 / 5141
    assert out.pretrain.hours == pytest.approx(50 * 1000 * an_epoch_of_one)
    assert out.finetune.hours == pytest.approx(50 * (80 + 30) * an_epoch_of_one * 71.4 / 403.6)


def test_milestones_cost_no_hours_but_their_weights(site):
    long, short = cass(epochs=300), cass(epochs=100)
    alone = estimate(plan_of(site, long), site)
    plan = plan_of(site, short, long, finetune(pretrain=short, epochs=1))
    assign_milestones(plan.runs.values())
    out = estimate(plan, site)
    assert out.pretrain == alone.pretrain and out.pretrain.hours == pytest.approx(3 * HOURS["brain_mri"])
    assert out.final_bytes == 2 * alone.final_bytes + R50 * 4
    assert out.wall_hours == pytest.approx(out.pretrain.hours + out.finetune.hours)  # it waits for the longer run's job


def test_a_users_dataset_is_taken_for_isic(site):
    mine = DatasetRef(name="mine", fingerprint="a" * 16)
    assert estimate(plan_of(site, cass(mine)), site).pretrain.runs == {UNKNOWN: 1}
    shards(site, mine, train=2026)
    out = estimate(plan_of(site, cass(mine)), site)
    assert out.pretrain.hours == pytest.approx(HOURS["isic"] * 2026 / 20265)
    assert out.pretrain.runs == {DERIVED: 1}


def test_finished_runs_replace_the_paper(site):
    shards(site, BRAIN, train=1000, val=90)
    done, todo = finetune(), finetune(seed=78, label_fraction=0.1)
    plan = plan_of(site, done, todo)
    run = finish(site, done, speed=40, seconds=25.0, epochs=1, device="cuda", model="Tesla T4")
    plan.runs[run.id].state = "done"
    out = estimate(plan, site)
    # 40 · 25 training images and a third of 90 validation images in 25 s; 50 epochs of 100 and a third of 90 are to do
    assert out.finetune.hours == pytest.approx(50 * 130 / (1030 / 25) / 3600)
    assert out.finetune.runs == {"measured on Tesla T4": 1}
    assert estimate_lines(out)[0] == "GPU-hours: less than 0.1 of fine-tuning at most (measured on Tesla T4)"


def test_runs_of_other_plans_count_but_not_of_other_devices(site):
    shards(site, BRAIN, train=3600)
    finish(site, cass(seed=5), speed=10, device="cpu", model="a processor")
    finish(site, cass(seed=6, image_size=224), speed=99)
    out = estimate(plan_of(site, cass()), site)
    assert out.pretrain.runs == {"measured on a processor": 1}
    assert out.pretrain.hours == pytest.approx(10.0)
    assert estimate_lines(out)[0] == "hours: 10 of pretraining (measured on a processor)"
    gpu = tiny.make_cluster(Path(site.runs).parent, device="cuda")
    assert estimate(plan_of(gpu, cass()), gpu).pretrain.runs == {TABLE_2: 1}


def test_hours_on_a_cpu_are_gpu_hours_only_next_to_those_of_a_gpu(site):
    shards(site, BRAIN, train=3600)
    finish(site, cass(seed=5), speed=10, device="cpu", model="a processor")
    assert estimate(plan_of(site, cass(), cass(seed=78)), site).unit == "hours"
    assert estimate(plan_of(site, cass(), finetune()), site).unit == "GPU-hours"  # the other is derived from Table 2


def test_damaged_results_are_left_out(site):
    shards(site, BRAIN, train=3600)
    for seed, name in ((5, "result"), (6, "spec"), (7, "start")):
        files.write_text(finish(site, cass(seed=seed), speed=10)[name], "{}")
    finish(site, cass(seed=8), speed=20)
    assert estimate(plan_of(site, cass()), site).pretrain.hours == pytest.approx(5.0)


def test_a_gpu_is_modelled_by_its_peak_until_a_run_is_measured(site):
    shards(site, BRAIN, train=3600, val=0)
    dino = recipes.dino(BRAIN, paper.VIT_B16, preset=PRESET, seed=77)
    for precision, used in (("auto", 0.25 * 130.0), ("float16", 0.25 * 130.0), ("float32", 0.45 * 16.3)):
        here = dataclasses.replace(site, gpu_model="RTX8000", precision=precision, device="cuda")
        chosen = [(cass(epochs=1), 71.4 + 332.2), (dataclasses.replace(dino, epochs=1), 886.7)]
        chosen.append((finetune(epochs=1), 71.4))
        for spec, gflops in chosen:  # the DINO's is vit-pytorch's, counted
            out = estimate(plan_of(here, spec), here)
            assert out.pretrain.hours + out.finetune.hours == pytest.approx(gflops / (used * 1000), rel=1e-3)
            assert out.pretrain.runs + out.finetune.runs == {MODELLED: 1}
    out = estimate(plan_of(here, cass(epochs=100)), here)
    assert out.hours_by_table_2 == pytest.approx(HOURS["brain_mri"] * 3600 / 5141)
    said = "\n".join(estimate_lines(out))
    assert "at 40 to 50 % it makes 16 to 20 images a second of CASS in float32; Table 2's, on ISIC, makes 19" in said
    emulated = dataclasses.replace(here, precision="bfloat16")  # its peak tells nothing of that
    assert estimate(plan_of(emulated, cass()), emulated).pretrain.runs == {TABLE_2: 1}
    finish(here, cass(seed=5), speed=10, device="cuda", model="Quadro RTX 8000")
    assert estimate(plan_of(here, cass()), here).pretrain.runs == {"measured on Quadro RTX 8000": 1}


def test_what_the_paper_cannot_tell_is_counted_and_printed(site, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", site.weights)
    shards(site, BRAIN, train=100, size=tiny.SIZE)
    spec = cass(backbones=tiny.BACKBONES, image_size=tiny.SIZE)
    out = estimate(plan_of(site, spec), site)
    assert out.pretrain.runs == {UNKNOWN: 1}
    assert out.unknown_sizes == tuple(sorted(b.tag for b in tiny.BACKBONES))
    assert estimate_lines(out) == [
        "of unknown length: 1 run; no run like that has finished here yet",
        "of unknown size, and not in the storage: test_resnet.r160_in1k, test_vit.r160_in1k",
    ]
    cpu = tiny.make_cluster(Path(site.runs).parent, device="cpu")
    assert estimate(plan_of(cpu, cass()), cpu).pretrain.runs == {UNKNOWN: 1}  # Table 2 is of a GPU


def test_sizes_come_from_finished_runs_and_imagenet_weights(site):
    spec = cass(backbones=tiny.BACKBONES, image_size=tiny.SIZE)
    finish(site, cass(backbones=tiny.BACKBONES, image_size=tiny.SIZE, seed=5), speed=1, size=4000)
    out = estimate(plan_of(site, spec), site)
    assert (out.final_bytes, out.unknown_sizes) == (1000 * 8, ())
    Path(site.weights).mkdir()
    (Path(site.weights) / f"{tiny.BACKBONES[0].tag}.safetensors").write_bytes(bytes(400))
    assert estimate(plan_of(site, finetune(backbone=tiny.BACKBONES[0])), site).final_bytes == 400


def test_storage_by_hand(site):
    chosen = [cass(seed=77), cass(seed=78), cass(seed=79)]
    chosen += [finetune(backbone=b, seed=seed) for b in paper.STANDARD for seed in (77, 78)]
    out = estimate(plan_of(site, *chosen), site)
    assert out.final_bytes == 3 * 8 * (R50 + VIT) + 2 * 4 * (R50 + VIT)
    assert out.peak_bytes == 2 * 3 * 16 * (R50 + VIT)  # two jobs, three checkpoints each
    shared = tiny.make_cluster(
        Path(site.runs).parent, executor="slurm", slurm=Slurm(parallelism=4), trials_per_gpu=2, device="cuda"
    )
    out = estimate(plan_of(shared, *chosen), shared)
    assert out.jobs == 4
    assert out.peak_bytes == 3 * (3 * 16 * (R50 + VIT)) + 2 * (3 * 16 * VIT)  # three alone, two trials on one GPU


def test_kept_states_take_one_more_checkpoint_each_for_milestones_too(site):
    long, short = cass(epochs=300), cass(epochs=100)
    plan = plan_of(site, short, long, finetune(pretrain=short))
    assign_milestones(plan.runs.values())
    kept = dataclasses.replace(site, keep_state=True)
    assert estimate(plan, kept).final_bytes == estimate(plan, site).final_bytes + 2 * 16 * (R50 + VIT)


def test_wall_clock_is_the_work_or_the_longest_chain_of_jobs(site):
    parents = [cass(seed=seed) for seed in (77, 78, 79)]
    out = estimate(plan_of(site, *parents), site)
    assert out.wall_hours == pytest.approx(1.5 * HOURS["brain_mri"])
    child = finetune(pretrain=parents[0])
    out = estimate(plan_of(site, parents[0], child), site)
    assert out.wall_hours == pytest.approx(out.pretrain.hours + out.finetune.hours)


def test_only_what_is_to_do_counts(site):
    for state in ("done", "failed", "blocked"):
        out = estimate(plan_of(site, cass(), state=state), site)
        assert (out.pretrain.hours, out.final_bytes, estimate_lines(out)) == (0.0, 0, [])
    plan = plan_of(site, cass(), state="interrupted")
    (planned,) = plan.runs.values()
    at = {"epoch": 74, "epochs": 100, "step": 50, "steps": 100, "images_per_second": 1.0, "eta_seconds": None}
    files.write_json(planned.run["progress"], {**at, "time": time.time()})
    assert estimate(plan, site).pretrain.hours == pytest.approx(0.255 * HOURS["brain_mri"])


def test_ten_thousand_runs_are_estimated(site):
    plan = plans.make_plan("main", site)
    plan.runs = {f"{name}-{copy}": planned for name, planned in plan.runs.items() for copy in range(28)}
    out = estimate(plan, site)
    assert len(plan.runs) == 10_080 and out.pretrain.runs == {TABLE_2: 1680}


def test_runs_of_frozen_features_store_no_weights_and_cost_a_forward_pass_of_each_image(tmp_path):
    site = tiny.make_cluster(tmp_path, device="cuda")
    shards(site, BRAIN, train=900, val=300)
    frozen, tuned = (finetune(probe=probe, epochs=1) for probe in ("linear", ""))
    found, other = (estimate(plan_of(site, spec), site) for spec in (frozen, tuned))
    assert (found.final_bytes, found.peak_bytes) == (0, 0) and other.final_bytes == 4 * R50
    assert found.finetune.hours == pytest.approx(other.finetune.hours * (1200 / 3) / (900 + 300 / 3))
