"""A finished run whose files are not what it wrote is damaged until it is discarded, wherever a process is killed."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
from deaths import deaths
from flips import flip
from test_run_folder import RESULT
from test_spec import FINETUNE

from pipeline.core import files
from pipeline.core.seals import Damaged
from pipeline.runs.folder import SEALED, Run
from pipeline.runs.identity import run_id

NAMES = ("weights", "predictions")


def trained(folder: Path) -> Run:
    """A run with all that it leaves but a result."""
    run = Run(folder / run_id(FINETUNE))
    run.announce(FINETUNE)
    files.write_json(run["start"], {"hardware": {}})
    for name in NAMES:
        run[name].write_bytes(name.encode() * 100)
    return run


@pytest.fixture
def run(tmp_path: Path) -> Run:
    run = trained(tmp_path)
    run.finish(RESULT)
    return run


def fresh(run: Run) -> Run:
    return Run(run.folder)


def test_a_result_names_the_files_of_its_run(run: Run) -> None:
    value = json.loads(run["result"].read_text())
    assert {name: entry["sha256"] for name, entry in value["files"].items()} == {
        run[name].name: files.sha256_file(run[name]) for name in NAMES
    }
    assert run.sealed and run.state() == "done" and run.result() == RESULT


@pytest.mark.parametrize("name", NAMES)
def test_a_file_of_another_size_is_seen_without_reading_it(run: Run, name: str) -> None:
    run[name].write_bytes(b"short")
    assert run.state() == "damaged" and f"{run[name].name} has 5 bytes, not the" in run.reason()
    run[name].unlink()
    assert run.state() == "damaged" and f"{run[name].name} is missing" in run.reason()
    assert not run["damaged"].exists()  # reading a state writes nothing


@pytest.mark.parametrize("name", NAMES)
def test_a_reader_that_finds_a_changed_file_marks_the_run(run: Run, name: str) -> None:
    whole = run.check(name, "test")
    flip(run[name], 77)
    assert run.state() == "done"
    with pytest.raises(Damaged, match=f"{run[name].name} was changed"):
        run.check(name, "test")
    text = run["damaged"].read_text()
    assert whole in text and files.sha256_file(run[name]) in text and "(found by test, 20" in text
    assert fresh(run).state() == "damaged" and run[name].name in fresh(run).reason()
    run.mark_damaged("again", "another")
    assert run["damaged"].read_text() == text
    assert run.result() == RESULT  # its own values are whole


@pytest.mark.parametrize("content", [b"{}", b"[]", b"\xff\xfe", b"", b'{"metrics": 3}', b"[" * 100_000])
def test_a_result_of_another_shape_is_damage_and_no_exception(run: Run, content: bytes) -> None:
    run["result"].write_bytes(content)
    assert run.state() == "damaged" and "result.json" in run.reason() and "\n" not in run.reason()
    with pytest.raises(ValueError, match=r"result\.json"):
        run.result()


def test_an_edited_result_is_seen(run: Run) -> None:
    value = json.loads(run["result"].read_text())
    value["metrics"]["f1_micro"] = 0.99
    run["result"].write_text(json.dumps(value))
    assert run.state() == "damaged" and "result.json was changed" in run.reason()


def test_runs_of_earlier_code_are_read_as_before(run: Run) -> None:
    files.write_json(run["result"], dataclasses.asdict(RESULT))
    run["weights"].write_bytes(b"other")
    run["predictions"].unlink()
    assert run.state() == "done" and not run.sealed and run.result() == RESULT
    assert run.check("weights", "test") == files.sha256_bytes(b"other")


def test_a_discarded_run_continues_as_if_it_had_never_ended(run: Run) -> None:
    run.mark_damaged("something", "test")
    with run.lock():
        assert run.state() == "running"
        run.discard()
    assert run.state() == "interrupted" and run["start"].exists() and not run["weights"].exists()


def test_a_folder_of_another_name_is_not_its_run(run: Run) -> None:
    other = run.folder.rename(run.folder.with_name(run.id[:-1] + "x"))
    with pytest.raises(ValueError, match=r"spec\.json is that of .*; name the folder so"):
        assert Run(other).spec


def contents(run: Run) -> dict[str, bytes]:
    return {name: run[name].read_bytes() for name in (*NAMES, "result") if run[name].exists()}


def test_a_run_killed_while_it_finishes_finishes_again(tmp_path: Path) -> None:
    calm = trained(tmp_path / "calm")
    calm.finish(RESULT)
    rough = trained(tmp_path / "rough")
    kills = []
    for number in deaths(lambda: rough.finish(RESULT)):
        kills.append(number)
        assert rough.state() in ("interrupted", "done")
        if rough.state() == "interrupted":
            rough.remove_temporaries()
            rough.finish(RESULT)
        assert contents(rough) == contents(calm) and rough.state() == "done"
        assert not rough.temporaries()
        rough["result"].unlink()
    assert len(kills) >= 4


def test_a_reader_killed_while_it_marks_leaves_a_mark_or_damage_that_is_found_again(run: Run) -> None:
    flip(run["weights"], 5)
    kills = []
    for number in deaths(lambda: pytest.raises(Damaged, run.check, "weights", "test")):
        kills.append(number)
        if not run["damaged"].exists():
            with pytest.raises(Damaged):
                run.check("weights", "test")
        assert fresh(run).state() == "damaged"
        run.remove_temporaries()
        run["damaged"].unlink()
    assert len(kills) >= 2


def test_a_retry_killed_at_any_place_is_damaged_until_all_is_gone(tmp_path: Path) -> None:
    run = trained(tmp_path)
    run.finish(RESULT)
    calm = contents(run)
    flip(run["weights"], 5)
    pytest.raises(Damaged, run.check, "weights", "test")
    shutil.copytree(run.folder, tmp_path / "copy")
    kills = []
    for number in deaths(run.discard):
        kills.append(number)
        assert run.state() in ("damaged", "interrupted")
        assert run.state() == "damaged" or not any(run[name].exists() for name in (*SEALED, "result"))
        run.discard()
        assert run.state() == "interrupted"
        for name in NAMES:
            run[name].write_bytes(name.encode() * 100)
        run.finish(RESULT)
        assert contents(run) == calm and run.state() == "done"
        shutil.rmtree(run.folder)
        shutil.copytree(tmp_path / "copy", run.folder)
    assert len(kills) >= 5
