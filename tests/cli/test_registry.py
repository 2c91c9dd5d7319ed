"""The registry of runs that `status --parquet` writes, read by what documentation reads it with."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import tracked
from commands import command
from repository import ROOT

PAGE = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
DOCUMENTED = re.findall(r"^(?:duckdb|pandas)\..*runs\.parquet.*$", PAGE, re.MULTILINE)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("registry")
    tracked.grid(folder)
    flags = ("--grid", "mine.py", "--cluster", "here.toml")
    done = command("status", *flags, "--parquet", "runs.parquet", cwd=folder)
    assert done.returncode == 0 and "2 done" in done.stdout, done.stderr
    return folder


def test_it_has_a_row_for_each_run_with_spec_state_and_result(folder: Path) -> None:
    import pyarrow.parquet as parquet

    flags = ("--grid", "mine.py", "--cluster", "here.toml")
    shown = json.loads(command("status", *flags, "--json", cwd=folder).stdout)["runs"]
    rows = parquet.read_table(folder / "runs.parquet").to_pylist()
    assert [(row["run"], row["state"], row["says"]) for row in rows] == [
        (row["run"], row["state"], row["says"]) for row in shown
    ]
    done = [row for row in rows if row["state"] == "done"]
    assert [(row["method"], row["seed"], row["label_fraction"]) for row in done] == [
        ("supervised", 77, 0.1),
        ("supervised", 77, 1.0),
    ]
    assert {row["result.f1_macro"] for row in done} == {0.5} and done[0]["result.device"] == "cpu"
    assert {row["result.f1_macro"] for row in rows if row["state"] != "done"} == {None}
    pretrained = next(row for row in rows if row["method"] == "cass" and row["kind"] == "finetune")
    assert pretrained["spec.pretrain.method.name"] == "cass" and pretrained["spec.pretrain.epochs"] == 4
    assert pretrained["spec.optim.lr"] == 3e-4 and pretrained["state"] == "missing"


def test_the_documented_lines_read_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import duckdb
    import pandas

    monkeypatch.chdir(folder)
    assert len(DOCUMENTED) == 2
    for line in DOCUMENTED:
        found = eval(line, {"duckdb": duckdb, "pandas": pandas}).reset_index()
        rows = sorted(zip(found["method"], found["label_fraction"], found["f1"], found["runs"], strict=True))
        assert rows == [("supervised", 0.1, 0.5, 1), ("supervised", 1.0, 0.5, 1)]
