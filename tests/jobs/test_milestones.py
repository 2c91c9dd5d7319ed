"""Milestones: what a longer run publishes on its way is, bit for bit, the shorter run trained alone."""

from __future__ import annotations

import dataclasses
import shutil

import kill
import pytest
import tiny
from stops import StopAt

from pipeline.core import files
from pipeline.jobs import execute, milestones, submissions
from pipeline.runs.folder import Run
from pipeline.runs.identity import run_id

LENGTHS = (2, 4, 8)  # their weights are averaged at the ends of epoch 1, of 3, and of 6 and 7
STEPS = 9  # an epoch


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return tiny.make_shards(tmp_path_factory.mktemp("milestones"))


@pytest.fixture(scope="module")
def specs(shards):
    return {epochs: tiny.make_pretrain(shards, epochs=epochs) for epochs in LENGTHS}


@pytest.fixture(scope="module")
def site(shards):
    return tiny.make_cluster(shards.folder.parent.parent, checkpoint_minutes=60.0, keep_state=True)


@pytest.fixture(scope="module")
def alone(specs, site, tmp_path_factory):
    """Each run by itself, in a folder where it finds no other."""
    runs = {
        epochs: tiny.announce(spec, dataclasses.replace(site, runs=str(tmp_path_factory.mktemp("alone"))))
        for epochs, spec in specs.items()
    }
    assert [execute.execute_run(run) for run in runs.values()] == [0, 0, 0]
    return runs


@pytest.fixture
def carried(specs, site, tmp_path):
    """The longest run with the others as its milestones, nothing done yet."""
    runs = {
        epochs: tiny.announce(spec, dataclasses.replace(site, runs=str(tmp_path))) for epochs, spec in specs.items()
    }
    submissions.request_milestones(runs[8], [specs[4], specs[2]])
    return runs


def differences(runs, others):
    return {epochs: found for epochs in runs if (found := kill.differences(runs[epochs], others[epochs]))}


def test_a_milestone_is_bit_for_bit_the_shorter_run_and_changes_none_of_the_longer(carried, alone):
    assert execute.execute_run(carried[8]) == 0
    assert differences(carried, alone) == {}
    for epochs in (2, 4):
        result, other = carried[epochs].result(), alone[epochs].result()
        assert carried[epochs].state() == "done" and carried[epochs].temporaries() == []
        assert len(carried[epochs].checkpoints()) == 1  # its full state; `differences` looks into it
        assert result.notes.pop("carried_by") == carried[8].id
        assert result.notes == other.notes and result.epochs == epochs
        assert (result.device, result.precision, result.threads) == (other.device, other.precision, other.threads)
        assert 0 < result.seconds < carried[8].result().seconds
        assert len(files.read_jsonl(carried[epochs]["metrics"])) == epochs
    assert execute.execute_run(carried[2]) == 0  # done already


def test_stops_around_a_milestone_change_no_bit_and_it_is_published_once(carried, alone):
    at = 2 * STEPS
    for look in (at - 1, 1, 1, 1):  # before the milestone's last step, at it, after it, and one further
        assert execute.execute_run(carried[8], StopAt(look)) == execute.STOPPED
        if carried[2]["result"].exists():
            break
    written = carried[2]["result"].stat().st_mtime_ns
    assert execute.execute_run(carried[8], StopAt(2 * STEPS + 3)) == execute.STOPPED
    assert carried[4].state() == "done"
    newest = carried[8].checkpoints()[0]
    newest.write_bytes(newest.read_bytes()[:-1])  # damaged: back to the one before the second milestone
    assert execute.execute_run(carried[8]) == 0
    assert carried[2]["result"].stat().st_mtime_ns == written
    assert differences(carried, alone) == {}


def test_a_shorter_run_that_is_done_at_work_or_begun_by_itself_is_left_alone(carried, alone, capfd, monkeypatch):
    assert execute.execute_run(carried[2]) == 0
    state = carried[2].checkpoints()[0]
    away = state.rename(state.with_suffix(".away"))  # or the longest would begin there
    assert execute.execute_run(carried[4], StopAt(3)) == execute.STOPPED
    kept = {epochs: carried[epochs]["start"].read_bytes() for epochs in (2, 4)}
    assert execute.execute_run(carried[8]) == 0
    assert {epochs: carried[epochs]["start"].read_bytes() for epochs in (2, 4)} == kept
    assert carried[4].state() == "interrupted"
    out = capfd.readouterr().out
    assert f"{carried[2].id} is done; left alone" in out and f"{carried[4].id} has begun by itself; left alone" in out

    monkeypatch.setattr(Run.lock, "__kwdefaults__", {"patience": 0.0, "stop": None})
    with carried[4].lock():
        milestones.publish(carried[4].spec, carried[8], {}, finish=None)
    assert "another process is at work" in capfd.readouterr().out
    assert execute.execute_run(carried[4]) == 0
    away.rename(state)
    assert differences(carried, alone) == {}


def test_a_longer_run_goes_on_from_the_end_of_the_longest_finished_one_with_the_same_bits(specs, site, alone, tmp_path):
    runs = {n: tiny.announce(spec, dataclasses.replace(site, runs=str(tmp_path))) for n, spec in specs.items()}
    for epochs in (2, 4):
        shutil.copytree(alone[epochs].folder, runs[epochs].folder, dirs_exist_ok=True)
    assert execute.execute_run(runs[8], StopAt(3)) == execute.STOPPED
    assert files.read_jsonl(runs[8]["metrics"]) == files.read_jsonl(alone[4]["metrics"])
    assert execute.execute_run(runs[8]) == 0
    assert runs[8].result().notes["goes_on_from"] == runs[4].id
    assert runs[8].result().seconds > alone[4].result().seconds
    assert differences(runs, alone) == {}


def test_a_run_goes_on_from_no_other_hardware_inputs_or_past_its_milestones(specs, site, alone, tmp_path):
    runs = {n: tiny.announce(spec, dataclasses.replace(site, runs=str(tmp_path))) for n, spec in specs.items()}
    shutil.copytree(alone[4].folder, runs[4].folder, dirs_exist_ok=True)
    began = files.read_json(runs[4]["start"])
    for change in (
        {"hardware": {**began["hardware"], "threads": 2}},
        {"inputs": {"index of tiny": "another"}},
        {"starts": [{**began["starts"][0], "versions": {"torch": "another"}}]},
    ):
        files.write_json(runs[4]["start"], {**began, **change})
        milestones.go_on(specs[8], runs[8], dict(began))
    files.write_json(runs[4]["start"], began)
    milestones.go_on(specs[8], runs[8], {**began, "milestones": [2]})
    assert not runs[8].checkpoints() and not runs[8]["start"].exists()
    milestones.go_on(specs[8], runs[8], {**began, "milestones": [4]})
    assert runs[8].checkpoints()[0].read_bytes() == runs[4].checkpoints()[0].read_bytes()


def test_a_carrier_keeps_the_milestones_of_its_first_start(carried, specs):
    submissions.request_milestones(carried[8], [specs[4]])
    assert execute.execute_run(carried[8], StopAt(3)) == execute.STOPPED
    submissions.request_milestones(carried[8], [specs[4], specs[2]])
    files.write_json(carried[8]["milestones"], [2, 4])
    assert carried[8].milestones() == [4]
    assert execute.execute_run(carried[8]) == 0
    assert (carried[2].state(), carried[4].state()) == ("pending", "done")


def test_a_start_that_a_killed_carrier_noted_does_not_count(carried, alone):
    files.write_json(carried[2]["start"], {"hardware": {"model": "elsewhere"}, "starts": [], "carried_by": "another"})
    (carried[2].folder / f"checkpoint-{99:010d}-{0:016d}.pt").write_bytes(b"of another device")
    assert carried[2].state() == "pending" and not carried[2].began
    assert execute.execute_run(carried[2]) == 0
    assert "carried_by" not in files.read_json(carried[2]["start"])
    assert kill.differences(carried[2], alone[2]) == []


def test_a_wish_that_cannot_be_is_an_error_that_says_so(carried):
    files.write_json(carried[8]["milestones"], [7])
    assert execute.execute_run(carried[8]) == 1
    assert "milestones.json wishes for 7 epochs" in carried[8].reason()
    assert run_id(carried[8].spec) in carried[8].reason()


@pytest.mark.slow
def test_sigkills_in_the_midst_of_publishing_and_right_after_it_change_no_bit(carried, alone):
    kill.killed_when(carried[8], carried[2]["start"])
    kill.killed_when(carried[8], carried[2]["result"])
    once = carried[2]["result"].stat().st_mtime_ns
    assert not carried[8].checkpoints()  # so it comes by again, from its first step
    kill.killed_when(carried[8], carried[4]["weights"])
    assert not carried[4]["result"].exists() or carried[4].state() == "done"
    kill.undisturbed(carried[8])
    assert carried[2]["result"].stat().st_mtime_ns == once
    assert differences(carried, alone) == {}
