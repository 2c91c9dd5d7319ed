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
from pipeline.runs.result import Start

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
    """Each run alone, in a folder where it finds no other."""
    runs = {
        epochs: tiny.announce(spec, dataclasses.replace(site, runs=str(tmp_path_factory.mktemp("alone"))))
        for epochs, spec in specs.items()
    }
    assert [execute.execute_run(run) for run in runs.values()] == [0, 0, 0]
    return runs


@pytest.fixture
def runs(specs, site, tmp_path):
    """The longest run with the others as its milestones, nothing done yet."""
    runs = {
        epochs: tiny.announce(spec, dataclasses.replace(site, runs=str(tmp_path))) for epochs, spec in specs.items()
    }
    submissions.request_milestones(runs[8], [specs[4], specs[2]])
    return runs


def differences(runs, others):
    return {epochs: found for epochs in runs if (found := kill.differences(runs[epochs], others[epochs]))}


def test_a_milestone_is_bit_for_bit_the_shorter_run_and_changes_none_of_the_longer(runs, alone):
    assert execute.execute_run(runs[8]) == 0
    assert differences(runs, alone) == {}
    for epochs in (2, 4):
        result, other = runs[epochs].result(), alone[epochs].result()
        assert runs[epochs].state() == "done" and runs[epochs].temporaries() == []
        assert len(runs[epochs].checkpoints()) == 1  # its full state; `differences` compares it
        assert result.notes.pop("carried_by") == runs[8].id
        assert result.notes == other.notes and result.epochs == epochs
        assert (result.device, result.precision, result.threads) == (other.device, other.precision, other.threads)
        assert 0 < result.seconds < runs[8].result().seconds
        assert len(files.read_jsonl(runs[epochs]["metrics"])) == epochs
    assert execute.execute_run(runs[2]) == 0  # it is done already


def test_stops_around_a_milestone_change_no_bit_and_it_is_published_once(runs, alone):
    at = 2 * STEPS
    for call in (at - 1, 1, 1, 1):  # before the milestone's last step, at it, after it, and one later
        assert execute.execute_run(runs[8], StopAt(call)) == execute.STOPPED
        if runs[2]["result"].exists():
            break
    written = runs[2]["result"].stat().st_mtime_ns
    assert execute.execute_run(runs[8], StopAt(2 * STEPS + 3)) == execute.STOPPED
    assert runs[4].state() == "done"
    newest = runs[8].checkpoints()[0]
    newest.write_bytes(newest.read_bytes()[:-1])  # damaged: back to the one before the second milestone
    assert execute.execute_run(runs[8]) == 0
    assert runs[2]["result"].stat().st_mtime_ns == written
    assert differences(runs, alone) == {}


def test_a_shorter_run_that_is_done_running_or_started_by_itself_is_left_alone(runs, alone, capfd, monkeypatch):
    assert execute.execute_run(runs[2]) == 0
    state = runs[2].checkpoints()[0]
    away = state.rename(state.with_suffix(".away"))  # or the longest would start there
    assert execute.execute_run(runs[4], StopAt(3)) == execute.STOPPED
    kept = {epochs: runs[epochs]["start"].read_bytes() for epochs in (2, 4)}
    assert execute.execute_run(runs[8]) == 0
    assert {epochs: runs[epochs]["start"].read_bytes() for epochs in (2, 4)} == kept
    assert runs[4].state() == "interrupted"
    out = capfd.readouterr().out
    assert f"{runs[2].id} is done; left alone" in out and f"{runs[4].id} has started by itself; left alone" in out

    monkeypatch.setattr(Run.lock, "__kwdefaults__", {"patience": 0.0, "stop": None})
    with runs[4].lock():
        milestones.publish(runs[4].spec, runs[8], Start(hardware={}, inputs={}), finish=None)
    assert "another process is at work" in capfd.readouterr().out
    assert execute.execute_run(runs[4]) == 0
    away.rename(state)
    assert differences(runs, alone) == {}


def test_a_longer_run_continues_from_the_end_of_the_longest_finished_one_with_the_same_bits(
    specs, site, alone, tmp_path
):
    runs = {n: tiny.announce(spec, dataclasses.replace(site, runs=str(tmp_path))) for n, spec in specs.items()}
    for epochs in (2, 4):
        shutil.copytree(alone[epochs].folder, runs[epochs].folder, dirs_exist_ok=True)
    assert execute.execute_run(runs[8], StopAt(3)) == execute.STOPPED
    assert files.read_jsonl(runs[8]["metrics"]) == files.read_jsonl(alone[4]["metrics"])
    assert execute.execute_run(runs[8]) == 0
    assert runs[8].result().notes["goes_on_from"] == runs[4].id
    assert runs[8].result().seconds > alone[4].result().seconds
    assert differences(runs, alone) == {}


def test_a_run_continues_from_no_other_hardware_or_inputs_and_not_past_its_milestones(specs, site, alone, tmp_path):
    runs = {n: tiny.announce(spec, dataclasses.replace(site, runs=str(tmp_path))) for n, spec in specs.items()}
    shutil.copytree(alone[4].folder, runs[4].folder, dirs_exist_ok=True)
    start = runs[4].start()
    for change in (
        {"hardware": {**start.hardware, "threads": 2}},
        {"inputs": {"index of tiny": "another"}},
        {"starts": ({**start.starts[0], "versions": {"torch": "another"}},)},
    ):
        files.write_json(runs[4]["start"], dataclasses.replace(start, **change).to_json())
        assert milestones.resume_from_shorter(specs[8], runs[8], start) == start
    files.write_json(runs[4]["start"], start.to_json())
    earlier = dataclasses.replace(start, milestones=(2,))
    assert milestones.resume_from_shorter(specs[8], runs[8], earlier) == earlier
    assert not runs[8].checkpoints() and not runs[8]["start"].exists()
    resumed = milestones.resume_from_shorter(specs[8], runs[8], dataclasses.replace(start, milestones=(4,)))
    assert resumed.resumed_from == runs[4].id and runs[8].start() == resumed
    assert runs[8].checkpoints()[0].read_bytes() == runs[4].checkpoints()[0].read_bytes()


def test_a_run_keeps_the_milestones_of_its_first_start(runs, specs):
    submissions.request_milestones(runs[8], [specs[4]])
    assert execute.execute_run(runs[8], StopAt(3)) == execute.STOPPED
    submissions.request_milestones(runs[8], [specs[4], specs[2]])
    files.write_json(runs[8]["milestones"], [2, 4])
    assert runs[8].milestones() == [4]
    assert execute.execute_run(runs[8]) == 0
    assert (runs[2].state(), runs[4].state()) == ("pending", "done")


def test_a_start_that_a_killed_longer_run_noted_does_not_count(runs, alone):
    files.write_json(runs[2]["start"], {"hardware": {"model": "elsewhere"}, "starts": [], "carried_by": "another"})
    (runs[2].folder / f"checkpoint-{99:010d}-{0:016d}.pt").write_bytes(b"of another device")
    assert runs[2].state() == "pending" and not runs[2].began
    assert execute.execute_run(runs[2]) == 0
    assert "carried_by" not in files.read_json(runs[2]["start"])
    assert kill.differences(runs[2], alone[2]) == []


def test_a_request_that_cannot_be_is_an_error_that_says_so(runs):
    files.write_json(runs[8]["milestones"], [7])
    assert execute.execute_run(runs[8]) == 1
    assert "milestones.json requests 7 epochs" in runs[8].reason()
    assert run_id(runs[8].spec) in runs[8].reason()


@pytest.mark.slow
def test_sigkills_during_publishing_and_right_after_it_change_no_bit(runs, alone):
    kill.killed_when(runs[8], runs[2]["start"])
    kill.killed_when(runs[8], runs[2]["result"])
    once = runs[2]["result"].stat().st_mtime_ns
    assert not runs[8].checkpoints()  # so it passes the milestone again, from its first step
    kill.killed_when(runs[8], runs[4]["weights"])
    assert not runs[4]["result"].exists() or runs[4].state() == "done"
    kill.undisturbed(runs[8])
    assert runs[2]["result"].stat().st_mtime_ns == once
    assert differences(runs, alone) == {}
