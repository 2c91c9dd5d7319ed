"""What becomes of a run when its GPU has a fault, cannot be used, or is too small for several trials."""

from __future__ import annotations

import subprocess
import sys

import pytest
import tiny

from pipeline.core import files
from pipeline.jobs import execute, fanout
from pipeline.jobs.submissions import FOLDER

FAULT = """
import sys, torch
from pathlib import Path
from pipeline.jobs import execute
from pipeline.runs.folder import Run

def broken(run, stop):
    raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")

execute._train = broken
execute.execute_run(Run(Path(sys.argv[1])))
print("still here")
"""


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return tiny.make_shards(tmp_path_factory.mktemp("faults"))


@pytest.fixture
def runs(shards, tmp_path):
    site = tiny.make_cluster(tmp_path, shards=str(shards.folder.parent), device="auto", ray=False, trials_per_gpu=2)
    return [tiny.announce(tiny.make_finetune(shards, None, arm=arm, epochs=1), site) for arm in (0, 1)]


def test_a_fault_of_the_gpu_ends_the_process_and_leaves_a_run_that_is_submitted_again(runs):
    run = runs[0]
    run["start"].write_text("{}")
    done = subprocess.run([sys.executable, "-c", FAULT, str(run.folder)], capture_output=True, text=True)
    assert done.returncode == 1 and "still here" not in done.stdout
    assert "illegal memory access" in done.stderr
    assert run.state() == "interrupted"


def test_a_run_does_not_start_on_the_cpu_when_torch_cannot_use_its_gpu(runs, monkeypatch):
    import torch

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert execute.execute_run(runs[0]) == 1
    assert runs[0].state() == "failed" and "this run has GPU 0, but torch cannot use it" in runs[0].reason()
    assert not runs[0]["start"].exists()


def test_too_many_trials_for_the_gpu_are_tried_again_one_at_a_time(runs, tmp_path, monkeypatch):
    folder = tmp_path / "runs" / FOLDER / "id" / "0"
    files.write_json(folder / "runs.json", [run.id for run in runs])
    asked = []

    def engine(folders, *, trials, gpus, stop):
        asked.append((trials, len(folders)))
        if trials > 1:
            files.write_text(runs[1]["error"], "Traceback\nOutOfMemoryError: CUDA out of memory. Tried …\n")
            folders = folders[:1]
        for run in runs:
            if str(run.folder) in folders:
                files.write_json(run["result"], {})

    monkeypatch.setattr(fanout, "engine", lambda ray: engine)
    assert fanout.execute_fan_out(folder, lambda: False) == 0
    assert asked == [(2, 2), (1, 1)]
