"""What becomes of a run when its GPU has a fault, cannot be used, or is too small for several trials."""

from __future__ import annotations

import subprocess
import sys

import pytest
import tiny

from pipeline.core import files
from pipeline.jobs import execute, fanout
from pipeline.jobs.signals import REQUEUE
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


SHORTAGES = [
    "OutOfMemoryError: CUDA out of memory. Tried …",
    "RuntimeError: CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
    "RuntimeError: cuDNN error: CUDNN_STATUS_NOT_INITIALIZED",
    "RuntimeError: CUDA error: cudaErrorMemoryAllocation",
    "MemoryError: Unable to allocate 2 GiB",
    "",  # its process died without a word
]


def fan_out(folder, runs, monkeypatch, outcome, *, stop=lambda: False):
    """Execute a fan-out of `runs` whose engine lets `outcome(run, trials)` decide the reason of each that fails.

    None: the trial is done; empty: its process died. Returns the exit code and how many trials ran at once each time.
    """
    files.write_json(folder / "runs.json", [run.id for run in runs])
    asked = []

    def engine(folders, *, trials, gpus, stop):
        asked.append((trials, len(folders)))
        for run in runs:
            if str(run.folder) in folders:
                reason = outcome(run, trials)
                if reason is None:
                    files.write_json(run["result"], {})
                elif reason:
                    files.write_text(run["error"], f"Traceback\n{reason}\n")

    monkeypatch.setattr(fanout, "engine", lambda ray: engine)
    return fanout.execute_fan_out(folder, stop), asked


@pytest.mark.parametrize("reason", SHORTAGES)
def test_trials_that_lack_memory_are_tried_again_one_at_a_time(reason, runs, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "runs" / FOLDER / "id" / "0"
    code, asked = fan_out(
        folder, runs, monkeypatch, lambda run, trials: reason if trials > 1 and run.id == runs[1].id else None
    )
    assert code == 0 and asked == [(2, 2), (1, 1)]
    assert "one at a time now" in capsys.readouterr().out


@pytest.mark.parametrize("reason", [SHORTAGES[1], ""])
def test_what_happens_to_many_trials_at_once_burns_no_retry(reason, runs, tmp_path, monkeypatch):
    """Alone it has all its tries, and then it has failed."""
    folder = tmp_path / "runs" / FOLDER / "id" / "0"
    code, asked = fan_out(folder, runs, monkeypatch, lambda run, trials: reason if run.id == runs[1].id else None)
    assert asked == [(2, 2), *[(1, 1)] * (fanout.RETRIES + 1)]
    assert code == 1 and runs[1].state() == "failed"


def test_a_trial_that_waits_for_another_gpu_lacked_no_memory(runs, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "runs" / FOLDER / "id" / "0"

    def outcome(run, trials):
        if run.id == runs[0].id:
            run["waits"].write_text("Quadro RTX 8000 (gres:rtx8000)\n")
            return ""
        return None

    code, asked = fan_out(folder, runs, monkeypatch, outcome)
    assert code == REQUEUE and asked == [(2, 2)] and "memory ran out" not in capsys.readouterr().out


def test_another_failure_leaves_the_number_of_trials_as_it_is(runs, tmp_path, monkeypatch):
    folder = tmp_path / "runs" / FOLDER / "id" / "0"
    outcome = {runs[0].id: "RuntimeError: a bug", runs[1].id: None}
    code, asked = fan_out(folder, runs, monkeypatch, lambda run, trials: outcome[run.id])
    assert code == 1 and asked == [(2, 2), *[(2, 1)] * fanout.RETRIES]
