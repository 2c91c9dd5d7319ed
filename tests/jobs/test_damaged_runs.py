"""A run that finds its parent damaged waits for it; a retry and a damaged pixel map end with the bits of a calm run."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import tiny
from flips import flip
from kill import differences
from stops import StopAt

from pipeline.data import pixel_map
from pipeline.data.shards.index import Shards
from pipeline.jobs import execute, local
from pipeline.jobs import plan as plans
from pipeline.learn import checkpoint
from pipeline.runs.cluster import Cluster
from pipeline.runs.folder import Run
from pipeline.runs.spec import PretrainSpec

GRID = """
import dataclasses
import tiny
IMAGE_SIZE = 32
DATASETS = ("tiny",)
SEEDS = 1

def grid(datasets, seeds, preset):
    return [tiny.make_finetune(info.ref, tiny.make_pretrain(info.ref, epochs=2), epochs=1) for info in datasets]
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Shards]:
    folder = tmp_path_factory.mktemp("damaged")
    return folder, tiny.make_shards(folder)


@pytest.fixture(scope="module")
def calm(home: tuple[Path, Shards]) -> Run:
    """The pretraining run, undisturbed."""
    folder, shards = home
    run = tiny.announce(spec_of(shards), site_of(folder, "calm"))
    assert execute.execute_run(run) == 0
    return run


def spec_of(shards: Shards) -> PretrainSpec:
    return tiny.make_pretrain(shards, epochs=2)


def site_of(folder: Path, name: str) -> Cluster:
    return tiny.make_cluster(
        folder, runs=str(folder / name), scratch=str(folder / name / ".scratch"), scratch_in_ram=True
    )


def test_a_damaged_parent_blocks_its_child_and_a_retry_trains_it_again_with_the_same_bits(home, calm) -> None:
    folder, shards = home
    site = site_of(folder, "parent")
    (folder / "mine.py").write_text(GRID)
    plan = plans.make_plan(str(folder / "mine.py"), site)
    plans.publish(plan, plan.runs.values())
    parent, child = (planned.run for planned in plan.runs.values())
    assert execute.execute_run(parent) == 0
    flip(parent["weights"], 8 * 100_000)
    assert parent.state() == "done"  # nobody has read it

    plan = plans.make_plan(str(folder / "mine.py"), site)
    assert [planned.state for planned in plan.runs.values()] == ["done", "pending"]
    queue = local.JobQueue(plan)
    assert execute.execute_run(child) == 1
    assert child.state() == "pending" and "weights.safetensors was changed" in parent.reason()
    assert queue.is_blocked(plan.runs[child.id])
    assert execute.execute_run(parent) == 1  # never by itself

    plan = plans.make_plan(str(folder / "mine.py"), site)
    assert [planned.state for planned in plan.runs.values()] == ["damaged", "pending"]
    plans.retry_failed(plan)
    assert [planned.state for planned in plan.runs.values()] == ["interrupted", "pending"]
    assert execute.execute_run(parent) == 0 and differences(parent, calm) == []
    assert execute.execute_run(child) == 0 and child.state() == "done"


def test_a_run_that_was_killed_after_its_result_loses_its_checkpoints_when_it_is_started_again(home, calm) -> None:
    left = calm.folder / "checkpoint-00000001-ab.pt"
    left.write_bytes(b"state")
    assert execute.execute_run(calm) == 0
    assert not left.exists() and calm.state() == "done"


def test_an_unfinished_run_whose_start_cannot_be_read_is_damaged_and_a_retry_ends_with_the_same_bits(
    home, calm
) -> None:
    folder, shards = home
    site = site_of(folder, "start")
    (folder / "mine.py").write_text(GRID)
    plans.publish(plan := plans.make_plan(str(folder / "mine.py"), site), plan.runs.values())
    run = next(iter(plan.runs.values())).run
    assert execute.execute_run(run, StopAt(15)) == execute.STOPPED and run.checkpoints()
    for damage in (run["start"].read_bytes()[:40], b"\xff", b"[]"):
        run["start"].write_bytes(damage)
        assert execute.execute_run(run) == 1  # never by itself
        plan = plans.make_plan(str(folder / "mine.py"), site)
        assert [planned.state for planned in plan.runs.values()] == ["damaged", "pending"]
        assert "start.json" in run.reason()
        with run.lock():
            assert [planned.state for planned in plans.make_plan(str(folder / "mine.py"), site).runs.values()] == [
                "running",
                "pending",
            ]
    plans.retry_failed(plan)
    assert [planned.state for planned in plan.runs.values()] == ["pending", "pending"]
    assert execute.execute_run(run) == 0 and differences(run, calm) == []


def test_a_map_that_is_damaged_while_a_run_reads_it_changes_no_bit(home, calm, monkeypatch, capfd) -> None:
    """The damage comes after the first checkpoint, and is found later: what was learnt until then is forgotten."""
    folder, shards = home
    site = site_of(folder, "map")
    run = tiny.announce(spec_of(shards), site)
    real, saved = checkpoint.save, []

    def save(run, state, step):
        saved.append(step)
        if len(saved) == 2:
            (path,) = Path(site.scratch).glob("*.u8")
            flip(path, 8 * 1000)
        return real(run, state, step)

    monkeypatch.setattr(checkpoint, "save", save)
    monkeypatch.setattr(pixel_map, "CHECKED_SHARE", 10.0)
    assert execute.execute_run(run) == 0
    assert "were changed after they were written" in capfd.readouterr().out
    assert saved.count(saved[0]) == 2  # it began twice
    assert differences(run, calm) == []


def test_a_map_found_damaged_at_a_resume_costs_the_checkpoints(home, calm, capfd) -> None:
    folder, shards = home
    site = site_of(folder, "resume")
    run = tiny.announce(spec_of(shards), site)
    asked = iter([False] * 6)
    assert execute.execute_run(run, lambda: next(asked, True)) == execute.STOPPED
    (path,) = Path(site.scratch).glob("*.u8")
    assert run.checkpoints()
    flip(path, 80_000)
    assert execute.execute_run(run) == 0
    assert "this run starts from the beginning" in capfd.readouterr().out
    assert differences(run, calm) == []


def test_shorter_runs_that_a_run_published_are_damaged_with_it(home, calm) -> None:
    folder, shards = home
    site = site_of(folder, "shorter")
    run = tiny.announce(spec_of(shards), site)
    shorter = tiny.announce(dataclasses.replace(spec_of(shards), epochs=1), site)
    start = dataclasses.replace(calm.start(), milestones=(1,))
    execute.files.write_json(run["start"], start.to_json())
    result = calm.result()
    shorter.finish(dataclasses.replace(result, notes={**result.notes, "carried_by": run.id}))
    execute.forget(run, "a bad map")
    assert shorter.state() == "damaged" and "may have learnt from it: a bad map" in shorter.reason()
