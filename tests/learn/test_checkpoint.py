"""Checkpoints written in the background: what they hold, when they are waited for, and what their failures do."""

import errno
import os
import signal
import subprocess
import sys
import threading
import time

import pytest
import torch
from torch import nn

from pipeline.learn import checkpoint
from pipeline.runs.folder import Run

CPU = torch.device("cpu")


@pytest.fixture
def run(tmp_path):
    return Run(tmp_path)


@pytest.fixture
def gate(monkeypatch):
    """Writes wait at their flush to disk until the gate is opened."""
    opened, fsync = threading.Event(), os.fsync

    def guarded(handle):
        assert opened.wait(60)
        fsync(handle)

    monkeypatch.setattr(os, "fsync", guarded)
    yield opened
    opened.set()


def test_a_checkpoint_holds_the_state_of_its_step_while_training_continued(run, gate, device):
    weight = torch.zeros(3, device=device)
    with checkpoint.Writer(run) as writer:
        writer.save({"weights": {"a": weight}, "moments": [weight + 1]}, 5)
        weight += 7
        assert run.checkpoints() == []
        gate.set()
    assert checkpoint.load(run, CPU)["weights"]["a"].tolist() == [0, 0, 0]


def test_a_second_checkpoint_waits_for_the_first_and_both_are_right(run, gate, device):
    weight = torch.zeros(1_000_000, device=device)
    threading.Timer(0.2, gate.set).start()
    with checkpoint.Writer(run) as writer:
        for step in (1, 2, 3):
            weight.fill_(step)
            writer.save({"weight": weight}, step)
    assert [int(path.name.split("-")[1]) for path in run.checkpoints()] == [3, 2]
    assert checkpoint.load(run, CPU)["weight"].unique().tolist() == [3]
    run.checkpoints()[0].unlink()
    assert checkpoint.load(run, CPU)["weight"].unique().tolist() == [2]


def test_the_end_of_the_block_waits_for_the_write(run, gate):
    threading.Timer(0.2, gate.set).start()
    with pytest.raises(KeyError), checkpoint.Writer(run) as writer:
        writer.save({"weight": torch.ones(2)}, 1)
        raise KeyError("training failed")
    assert len(run.checkpoints()) == 1
    assert list(run.folder.glob(".*")) == []


@pytest.mark.parametrize("look", ["check", "wait", "save", "leave"])
def test_a_full_disk_is_an_error_of_the_run_and_the_old_checkpoint_stays(run, monkeypatch, look):
    checkpoint.save(run, {"weight": torch.ones(2)}, 1)

    def full(handle):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"), checkpoint.Writer(run) as writer:
        writer.save({"weight": torch.zeros(2)}, 2)
        if look == "check":
            while True:
                writer.check()
                time.sleep(0.001)
        elif look == "wait":
            writer.wait()
        elif look == "save":
            writer.save({"weight": torch.zeros(2)}, 3)
    assert checkpoint.load(run, CPU)["weight"].tolist() == [1, 1]
    assert list(run.folder.glob(".*")) == []


@pytest.mark.parametrize("values", [(1.0, 2.0), (2.0, 1.0)])
def test_of_two_checkpoints_of_one_step_the_later_stays(run, values):
    checkpoint.save(run, {"weight": torch.zeros(2)}, 6)
    for value in values:  # names sort by their hashes, in one of both orders against time
        last = checkpoint.save(run, {"weight": torch.full((2,), value)}, 7)
    assert run.checkpoints()[0] == last
    assert [path.name.split("-")[1] for path in run.checkpoints()] == ["0000000007", "0000000006"]
    assert torch.equal(checkpoint.load(run, torch.device("cpu"))["weight"], torch.full((2,), values[-1]))


def test_a_copy_is_the_state_and_takes_the_memory_of_the_one_before():
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).to(memory_format=torch.channels_last)
    state = {"module": module.state_dict(), "counts": [1, torch.ones(2)], "best": None}
    first = checkpoint.host_copy(state)
    weight = first["module"]["0.weight"]
    assert torch.equal(weight, module[0].weight)
    assert weight.stride() == module[0].weight.stride()
    assert first["module"]._metadata == state["module"]._metadata
    assert weight.data_ptr() != module[0].weight.data_ptr()
    module[0].weight.data.fill_(2)
    grown = {**state, "counts": [1, torch.ones(3), 2], "best": {"model": torch.ones(2)}}
    second = checkpoint.host_copy(grown, first)
    assert second["module"]["0.weight"].data_ptr() == weight.data_ptr()
    assert second["module"]["0.weight"].unique().tolist() == [2]
    assert second["counts"][1].tolist() == [1, 1, 1] and second["counts"][2] == 2
    assert second["best"]["model"].tolist() == [1, 1]
    assert checkpoint.host_copy(state, second)["best"] is None


KILLED = """
import os, sys, threading, torch
from pathlib import Path
from pipeline.learn import checkpoint
from pipeline.runs.folder import Run
writer = checkpoint.Writer(Run(Path(sys.argv[1])))
writer.save({"weight": torch.ones(1_000_000)}, 1)
writer.wait()
os.fsync = lambda handle: (print("flushing", flush=True), threading.Event().wait())
writer.save({"weight": torch.zeros(1_000_000)}, 2)
threading.Event().wait()
"""


def test_a_kill_while_a_checkpoint_is_written_leaves_the_one_before(run):
    process = subprocess.Popen([sys.executable, "-c", KILLED, run.folder], stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"flushing\n"
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert [path.name for path in run.temporaries()] == [".checkpoint.tmp"]
    assert checkpoint.load(run, CPU)["weight"].unique().tolist() == [1]
