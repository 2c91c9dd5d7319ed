"""The plan: each run once, parents first, states from the folders; commands for what is missing."""

from __future__ import annotations

import dataclasses

import finished
import pytest
import tiny

from pipeline.core import files
from pipeline.data.layouts import UserDataset
from pipeline.jobs import datasets
from pipeline.jobs import plan as plans
from pipeline.runs.folder import Run
from pipeline.runs.identity import run_id
from pipeline.runs.spec import PretrainSpec
from pipeline.study.setting import chosen_shards

GRID = """
import dataclasses
import tiny
IMAGE_SIZE = 32
DATASETS = ("tiny",)
SEEDS = 2

def grid(datasets, seeds, preset):
    from pipeline.data.shards.index import find_shards
    out = []
    for info in datasets:
        class shards:
            name, fingerprint = info.ref.name, info.ref.fingerprint
        for seed in seeds:
            pretrain = tiny.make_pretrain(shards, seed=seed, epochs=2)
            for arm in (0, 1):
                for parent in (pretrain, None):
                    out.append(tiny.make_finetune(shards, parent, arm=arm, seed=seed, epochs=2))
    return out + out[:1]
"""


@pytest.fixture
def grid(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(GRID)
    return str(path)


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return tiny.make_shards(tmp_path_factory.mktemp("plan"))


@pytest.fixture
def site(shards, tmp_path):
    return tiny.make_cluster(tmp_path, shards=str(shards.folder.parent))


def test_each_run_is_planned_once_and_parents_come_first(grid, site):
    plan = plans.make_plan(grid, site)
    runs = plan.runs.values()
    kinds = [isinstance(planned.spec, PretrainSpec) for planned in runs]
    assert kinds == [True] * 2 + [False] * 8
    assert len(plan.wanted) == 9  # one of them twice
    assert {planned.state for planned in runs} == {"missing"}
    assert [planned.children for planned in runs if isinstance(planned.spec, PretrainSpec)] == [2, 2]
    assert not any((folder := planned.run.folder).exists() for planned in runs), folder


def test_states_follow_the_files(grid, site):
    planned = next(iter(plans.make_plan(grid, site).runs.values()))

    def state():
        return plans.make_plan(grid, site).runs[planned.run.id].state

    planned.run.announce(planned.spec)
    assert state() == "pending"
    files.write_json(planned.run["start"], {})
    assert state() == "interrupted"
    files.write_text(planned.run["error"], "Traceback\nValueError: broken\n")
    assert state() == "failed"
    with planned.run.lock():
        assert state() == "running"
    files.write_json(planned.run["result"], {})
    assert state() == "damaged"
    planned.run.finish(finished.result(planned.spec, {}))
    assert state() == "done"


def test_missing_shards_are_named_with_the_command_that_makes_them(site):
    plan = plans.make_plan("small", site, preset="sound")
    assert plan.missing_shards == [
        "python -m pipeline.shard brain_mri --raw DIR --size 64 --split grouped",
        "python -m pipeline.shard isic --raw DIR --size 64 --split grouped",
    ]
    assert {planned.state for planned in plan.runs.values()} == {"no shards"}


def test_a_users_dataset_without_shards_is_an_error_with_the_command(site):
    with pytest.raises(ValueError, match="python -m pipeline.shard my_lesions --layout folder --raw DIR --size 64"):
        plans.make_plan("small", site, datasets=["my_lesions"])


def test_own_images_sharded_by_patient_need_no_split_in_their_name(tmp_path):
    made = tiny.make_patients(tmp_path)
    site = tiny.make_cluster(tmp_path, shards=str(made.folder.parent))
    size = {"size": tiny.SIZE}
    for text in ("patients", "patients:grouped"):
        (info,), missing = datasets.find_datasets(chosen_shards([text], "image"), site, **size)
        assert (info.ref.fingerprint, info.grouped, missing) == (made.fingerprint, True, [])
    with pytest.raises(ValueError, match=r"have the split grouped, .*for image; write patients:grouped$"):
        datasets.find_datasets(chosen_shards(["patients:image"], "image"), site, **size)
    with pytest.raises(ValueError, match=r"write patients:grouped$"):  # not the same shards under two names
        datasets.find_datasets(chosen_shards(["patients", "patients:grouped"], "image"), site, **size)
    by_image = tiny.shard(UserDataset("patients", "csv"), tmp_path / "raw", made.folder.parent)
    (info,), _ = datasets.find_datasets(chosen_shards(["patients"], "image"), site, **size)
    assert (info.ref.fingerprint, info.grouped) == (by_image.fingerprint, False)


def test_every_method_of_the_main_grid_can_start_once_its_shards_are_there(shards, site, monkeypatch):
    monkeypatch.setattr(datasets, "find_shards", lambda root, name, size, split, version: shards)
    plan = plans.make_plan("main", site)
    assert any("-dino-" in identity for identity in plan.runs)
    assert {planned.state for planned in plan.runs.values()} == {"missing"}


def test_missing_weights_are_an_error_before_any_job(shards, site, monkeypatch, tmp_path):
    monkeypatch.setattr(datasets, "find_shards", lambda root, name, size, split, version: shards)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    missing = plans.missing_weights(plans.make_plan("main", site))
    assert len(missing) == 2
    assert "pipeline.prefetch --tags resnet50.a1_in1k" in missing[0]


def test_other_contents_of_a_dataset_give_other_runs(grid, site, shards, monkeypatch):
    before = set(plans.make_plan(grid, site).runs)
    other = type(shards)(shards.folder, {**shards.manifest, "fingerprint": "f" * 16})
    monkeypatch.setattr(datasets, "find_shards", lambda root, name, size, split, version: other)
    assert not before & set(plans.make_plan(grid, site).runs)


def test_published_runs_hold_their_spec_and_the_facts_of_the_cluster(grid, site):
    plan = plans.make_plan(grid, site)
    plans.publish(plan, list(plan.runs.values()))
    for identity, planned in plan.runs.items():
        run = Run(planned.run.folder)
        assert run_id(run.spec) == identity
        assert files.read_json(run["job"])["runs"] == site.runs


def test_more_seeds_than_the_papers_follow_its_last_one():
    assert plans.seeds_of(6) == [77, 78, 79, 80, 81, 82]
    with pytest.raises(ValueError, match="--seeds is 0"):
        plans.seeds_of(0)


def test_fine_tunes_without_labels_are_no_runs_to_do_and_what_pretrains_stays(grid, site, shards, monkeypatch):
    counts = {**shards.manifest["counts"], "val": {"images": 8, "unlabelled": 8, "classes": {"disc": 0, "cross": 0}}}
    changed = dataclasses.replace(shards, manifest={**shards.manifest, "counts": counts})
    monkeypatch.setattr(datasets, "find_shards", lambda root, name, size, split, version: changed)
    plan = plans.make_plan(grid, site)
    assert {kind: set(states) for kind, states in plan.counts().items()} == {
        "pretrain": {"missing"},
        "finetune": {"no labels"},
    }
    assert plans.missing_labels(plan) == [
        "tiny has no image with a label in val, so 8 fine-tunes cannot start and the others continue; label some "
        "images there, and shard it again"
    ]
    for planned in plan.runs.values():
        planned.refresh()
    assert len(plan.in_state("no labels")) == 8
