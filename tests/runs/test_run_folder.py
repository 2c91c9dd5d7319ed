"""A run's folder says its state: a file written last is the proof, a living lock the rest."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from test_spec import FINETUNE, PRETRAIN

from pipeline.core import files
from pipeline.runs.folder import Run
from pipeline.runs.identity import run_id
from pipeline.runs.result import Result
from pipeline.runs.spec import Spec

PROGRESS = {"epoch": 2, "epochs": 9, "step": 4, "steps": 8, "images_per_second": 2.0, "eta_seconds": 3.0, "time": 0.0}

RESULT = Result(
    metrics={"f1_micro": 0.75, "per_class": {"MEL": {"f1": 0.5}}},
    seconds=12.5,
    images_per_second=640.0,
    epochs=3,
    best_epoch=1,
    device="cpu",
    precision="float32",
    threads=1,
    code="abc",
    versions={"torch": "2.4.0"},
)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path / run_id(FINETUNE))


def test_a_run_goes_from_missing_to_done(run: Run) -> None:
    assert run.state() == "missing"
    run.announce(FINETUNE)
    assert run.state() == "pending"
    with run.lock():
        assert run.state() == "running"
        files.write_json(run["start"], {"device": "cpu"})
        assert run.state() == "running"
    assert run.state() == "interrupted"
    with run.lock():
        run.finish(RESULT)
    assert run.state() == "done"


def test_a_failed_run_says_why_until_it_runs_again(run: Run) -> None:
    run.announce(FINETUNE)
    files.write_json(run["start"], {"device": "cpu"})
    files.write_text(run["error"], "Traceback\n  in loop\nValueError: the loss is nan at step 17\n")
    assert run.state() == "failed"
    assert run.reason() == "ValueError: the loss is nan at step 17"
    with run.lock():
        assert run.state() == "running"


def test_a_run_without_an_error_has_no_reason(run: Run) -> None:
    run.announce(FINETUNE)
    assert run.reason() == ""


def test_an_error_that_is_no_utf_8_is_a_reason_all_the_same(run: Run) -> None:
    """A waiting launch and status read it."""
    run.announce(FINETUNE)
    run["error"].write_bytes(b"Traceback\nOSError: caf\xe9.tar\n")
    assert run.reason() == "OSError: caf\ufffd.tar"


def test_a_finished_run_is_done_whatever_else_is_in_its_folder(run: Run) -> None:
    run.announce(FINETUNE)
    files.write_text(run["error"], "killed\n")
    files.write_json(run["progress"], {"time": 0, "epoch": 1})
    run.finish(RESULT)
    assert run.state() == "done"
    assert not run["error"].exists() and not run["progress"].exists()
    assert run.result() == RESULT


def test_announcing_a_run_again_changes_nothing(run: Run) -> None:
    run.announce(FINETUNE)
    before = run["spec"].stat()
    run.announce(FINETUNE)
    after = run["spec"].stat()
    assert (before.st_mtime_ns, before.st_ino) == (after.st_mtime_ns, after.st_ino)


@pytest.mark.parametrize("spec", [PRETRAIN, FINETUNE])
def test_the_spec_comes_back_from_the_folder_alone(tmp_path: Path, spec: Spec) -> None:
    run = Run(tmp_path / run_id(spec))
    run.announce(spec)
    assert Run(run.folder).spec == spec
    assert run.id == run_id(spec)


def test_a_result_of_a_later_version_is_still_read(run: Run) -> None:
    run.announce(FINETUNE)
    files.write_json(run["result"], {**dataclasses.asdict(RESULT), "watts": 3})
    assert run.result() == RESULT


def test_progress_that_is_torn_or_not_there_is_no_progress(run: Run) -> None:
    run.announce(FINETUNE)
    assert run.progress() == {}
    run["progress"].write_text('{"epoch": ')
    assert run.progress() == {}
    for odd in ({"time": 0.0, "epoch": 2}, {**PROGRESS, "step": "40"}, {**PROGRESS, "eta_seconds": []}, [], None):
        run["progress"].write_text(json.dumps(odd))
        assert run.progress() == {}
    run["progress"].write_text(json.dumps({**PROGRESS, "eta_seconds": None}))
    assert run.progress()["eta_seconds"] is None
    run["progress"].write_text(json.dumps(PROGRESS))
    progress = run.progress()
    assert progress["epoch"] == 2
    assert progress["age"] > 0


def test_checkpoints_come_newest_first_and_a_finished_run_needs_none_or_its_last(tmp_path: Path) -> None:
    run, finetuned = (Run(tmp_path / run_id(spec)) for spec in (PRETRAIN, FINETUNE))
    run.announce(PRETRAIN)
    finetuned.announce(FINETUNE)
    names = {step: f"checkpoint-{step:010d}-0123456789abcdef.pt" for step in (9, 100, 20)}
    for folder in (run.folder, finetuned.folder):
        for name in names.values():
            (folder / name).touch()
    assert [path.name for path in run.checkpoints()] == [names[100], names[20], names[9]]
    assert [path.name for path in run.spare_checkpoints(keep_state=True)] == [names[20], names[9]]
    assert run.spare_checkpoints(keep_state=False) == run.checkpoints()
    assert finetuned.spare_checkpoints(keep_state=True) == finetuned.checkpoints()
