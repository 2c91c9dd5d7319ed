"""What commands print with --json and --quiet: one object, or nothing."""

from __future__ import annotations

import argparse
import importlib
import json
import shutil
from pathlib import Path

import pytest
from commands import command

from pipeline.__main__ import COMMANDS
from pipeline.cli import flags
from pipeline.core import console

TALKERS = {"init", "completion", "status", "logs", "bench"}  # what they print is what they are for


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the toy's shards, written without a word."""
    folder = tmp_path_factory.mktemp("home")
    done = command("shard", "toy", "--size", "32", "--workers", "1", "--quiet", cwd=folder)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    return folder


def parsers() -> dict[str, argparse.ArgumentParser]:
    return {name: importlib.import_module(f"pipeline.{name}").parser() for name in COMMANDS}


def test_every_command_that_works_can_be_quiet() -> None:
    having = {name for name, parser in parsers().items() if "--quiet" in parser._option_string_actions}
    assert having == set(COMMANDS) - TALKERS


def test_shard_gives_its_closing_table(home: Path) -> None:
    done = command("shard", "toy", "--size", "32", "--workers", "1", "--json", cwd=home)
    told = json.loads(done.stdout)
    (folder,) = (home / "shards").glob("toy-32-*")
    manifest = json.loads((folder / "manifest.json").read_text())
    assert (told["folder"], told["state"]) == (f"shards/{folder.name}", "complete already")
    assert told["fingerprint"] == manifest["fingerprint"] and told["images"] == manifest["counts"]
    assert told["written"] == 900 and told["quarantined"] == [] and told["passed_over"] == {}
    planned = json.loads(command("shard", "toy", "--size", "16", "--json", "--dry-run", cwd=home).stdout)
    assert planned["state"] == "planned" and planned["images"] == told["images"]


def test_a_dry_run_gives_states_tables_and_what_is_not_met(home: Path) -> None:
    done = command("launch", "--grid", "demo", "--dry-run", "--json", cwd=home)
    told = json.loads(done.stdout)
    assert done.returncode == 3 and told["states"] == {"pretrain": {"no shards": 4}, "finetune": {"no shards": 40}}
    assert "python -m pipeline.shard toy --size 64" in told["not_met"][0]
    assert [table["finetunes"] for table in told["tables"]] == [40, 0]
    assert told["estimate"]["finetune"]["runs_by_source"] == {"unknown": 40}
    assert {run["state"] for run in told["not_done"]} == {"no shards"} and len(told["not_done"]) == 44


def test_verify_and_clean_give_what_they_found(home: Path) -> None:
    told = json.loads(command("verify", "--shards", "--json", "--cluster", "local", cwd=home).stdout)
    (place,) = told["places"]
    assert (place["place"], place["checked"], place["damaged"]) == ("shards", 1, 0)
    found = json.loads(command("clean", "--json", cwd=home).stdout)
    assert found == {"removable": [], "removed": False}


def test_what_is_not_met_or_damaged_is_on_standard_error_when_quiet(home: Path, tmp_path: Path) -> None:
    done = command("launch", "--grid", "demo", "--dry-run", "--quiet", cwd=home)
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr.startswith("not met:\n  ") and "python -m pipeline.shard toy --size 64" in done.stderr
    both = command("launch", "--grid", "demo", "--dry-run", "--quiet", "--json", cwd=home)
    assert both.stderr == "" and json.loads(both.stdout)["not_met"]
    assert command("verify", "--shards", "--quiet", cwd=home).stderr == ""
    shutil.copytree(home / "shards", tmp_path / "shards")
    tar = next((tmp_path / "shards").glob("toy-32-*/*.tar"))
    data = bytearray(tar.read_bytes())
    data[700] ^= 1
    tar.write_bytes(data)
    bad = command("verify", "--shards", "--quiet", cwd=tmp_path)
    assert (bad.returncode, bad.stdout) == (1, "")
    assert bad.stderr.startswith("damaged    ") and tar.name in bad.stderr


def test_an_error_is_on_standard_error_with_either_flag(home: Path) -> None:
    for flag in ("--json", "--quiet"):
        done = command("verify", "isic", flag, cwd=home)
        assert (done.returncode, done.stdout) == (2, "") and done.stderr.startswith("error: give a dataset and --raw")


def test_the_flags_end_with_the_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def main() -> int:
        flags.given(flags.described("thing", "", as_json="a number"))
        print("text")
        console.answer({"number": 1, "where": Path("a/b")})
        console.hand_over("what was asked for\n")
        assert list(console.progress([1, 2], total=2, what="count")) == [1, 2]
        return 0

    for arguments, out in (
        ([], "text\nwhat was asked for\n"),
        (["--quiet"], "what was asked for\n"),
        (["--json", "--quiet"], '{\n  "number": 1,\n  "where": "a/b"\n}\n'),
    ):
        monkeypatch.setattr("sys.argv", ["thing", *arguments])
        with pytest.raises(SystemExit) as ended:
            console.run_command(main)
        assert ended.value.code == 0
        print("after")
        assert capsys.readouterr().out == f"{out}after\n"
