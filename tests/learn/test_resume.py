"""Exact resume: a run that was stopped, killed or found its checkpoint damaged ends with the same bits."""

from __future__ import annotations

import dataclasses
import random

import kill
import pytest
import tiny
import torch
from stops import StopAt

from pipeline.jobs import execute
from pipeline.learn import checkpoint


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return tiny.make_shards(tmp_path_factory.mktemp("resume"))


@pytest.fixture
def calm(shards, tmp_path, device):
    """An undisturbed pretraining run, and what made it; on a GPU in the precision that it computes best."""
    site = tiny.make_cluster(shards.folder.parent.parent, runs=str(tmp_path / "calm"), device=device)
    spec = tiny.make_pretrain(shards, epochs=3)
    run = tiny.announce(spec, site)
    assert execute.execute_run(run) == 0
    return run, spec, site


def test_a_run_stopped_in_the_middle_of_an_epoch_continues_with_the_same_bits(calm, tmp_path):
    calm_run, spec, site = calm
    run = tiny.announce(spec, dataclasses.replace(site, runs=str(tmp_path / "stopped")))
    for look in (5, 9, 1):
        assert execute.execute_run(run, StopAt(look)) == execute.STOPPED
        assert run.state() == "interrupted"
    assert execute.execute_run(run) == 0
    assert kill.differences(run, calm_run) == []


def test_a_damaged_checkpoint_is_passed_by_for_the_one_before_it(calm, tmp_path, capsys):
    calm_run, spec, site = calm
    run = tiny.announce(spec, dataclasses.replace(site, runs=str(tmp_path / "damaged")))
    assert execute.execute_run(run, StopAt(7)) == execute.STOPPED
    newest, older = run.checkpoints()
    data = bytearray(newest.read_bytes())
    data[len(data) // 2] ^= 1
    newest.write_bytes(data)
    assert execute.execute_run(run) == 0
    assert f"{newest.name} is damaged" in capsys.readouterr().err
    assert kill.differences(run, calm_run) == []


def test_a_killed_writer_leaves_no_checkpoint_and_no_temporary_file(calm, tmp_path):
    calm_run, spec, site = calm
    run = tiny.announce(spec, dataclasses.replace(site, runs=str(tmp_path / "torn")))
    (run.folder / ".checkpoint.tmp").write_bytes(b"half")
    assert checkpoint.load(run, torch.device("cpu")) is None
    assert execute.execute_run(run) == 0
    assert list(run.folder.glob(".*.tmp")) == []
    assert run.checkpoints() == []
    assert kill.differences(run, calm_run) == []


@pytest.mark.parametrize("device", ["cuda"], indirect=True)
def test_the_scale_of_float16_losses_is_part_of_the_state(shards, tmp_path, device):
    spec = tiny.make_pretrain(shards, epochs=2, precision="float16")
    site = tiny.make_cluster(shards.folder.parent.parent, device=device)
    calm_run = tiny.announce(spec, dataclasses.replace(site, runs=str(tmp_path / "calm")))
    run = tiny.announce(spec, dataclasses.replace(site, runs=str(tmp_path / "stopped")))
    assert execute.execute_run(calm_run) == 0
    assert execute.execute_run(run, StopAt(6)) == execute.STOPPED
    assert execute.execute_run(run) == 0
    assert "loss_scale" in execute.files.read_jsonl(run["metrics"])[0]
    assert kill.differences(run, calm_run) == []


def test_gradients_that_are_kept_are_part_of_the_state(shards, tmp_path):
    spec = tiny.make_pretrain(shards, epochs=2, keep_gradients=True, average=None)
    site = tiny.make_cluster(shards.folder.parent.parent)
    calm_run = tiny.announce(spec, dataclasses.replace(site, runs=str(tmp_path / "calm")))
    run = tiny.announce(spec, dataclasses.replace(site, runs=str(tmp_path / "stopped")))
    assert execute.execute_run(calm_run) == 0
    assert execute.execute_run(run, StopAt(6)) == execute.STOPPED
    assert execute.execute_run(run) == 0
    assert kill.differences(run, calm_run) == []


def test_a_run_refuses_to_continue_elsewhere(calm, tmp_path):
    _, spec, site = calm
    run = tiny.announce(spec, dataclasses.replace(site, runs=str(tmp_path / "moved")))
    assert execute.execute_run(run, StopAt(2)) == execute.STOPPED
    start = execute.files.read_json(run["start"])
    moved = {**start, "hardware": {**start["hardware"], "model": "another machine"}}
    execute.files.write_json(run["start"], moved)
    assert execute.execute_run(run) == 1
    assert "started with device another machine" in run.reason()

    (index,) = start["inputs"]
    execute.files.write_json(run["start"], {**start, "inputs": {index: "other images"}})
    assert execute.execute_run(run) == 1
    assert f"started with {index} other images" in run.reason()


@pytest.mark.parametrize("arm", [0, 1], ids=["cnn", "vit"])
@pytest.mark.parametrize("method", ["dino", "dino_fb"])
def test_a_run_of_dino_stopped_before_and_after_its_first_epoch_continues_with_the_same_bits(
    shards, tmp_path, method, arm
):
    """Teacher, centre, schedules and a last layer that is frozen at first (so without a state in the optimizer)."""
    spec = tiny.make_dino(shards, method=method, arm=arm, epochs=2)
    site = tiny.make_cluster(shards.folder.parent.parent)
    calm_run = tiny.announce(spec, dataclasses.replace(site, runs=str(tmp_path / "calm")))
    run = tiny.announce(spec, dataclasses.replace(site, runs=str(tmp_path / "stopped")))
    assert execute.execute_run(calm_run) == 0
    for look in (4, 8):
        assert execute.execute_run(run, StopAt(look)) == execute.STOPPED
    assert execute.execute_run(run) == 0
    assert kill.differences(run, calm_run) == []


@pytest.mark.slow
def test_sigkills_change_no_bit_of_a_run_of_dino(shards, tmp_path):
    site = tiny.make_cluster(shards.folder.parent.parent)
    spec = tiny.make_dino(shards, method="dino_fb", arm=1, epochs=12)
    calm_run = tiny.announce(spec, dataclasses.replace(site, runs=str(tmp_path / "calm")))
    run = tiny.announce(spec, dataclasses.replace(site, runs=str(tmp_path / "killed")))
    kill.undisturbed(calm_run)
    kill.disturbed(run, 2, calm_run.result().seconds / 2, random.Random(0))
    assert kill.differences(run, calm_run) == []


@pytest.mark.slow
def test_ten_sigkills_at_random_moments_change_no_bit_of_either_kind_of_run(tmp_path, device):
    assert kill.main(tmp_path, kills=10, device=device) == {"pretraining": [], "fine-tuning": []}
