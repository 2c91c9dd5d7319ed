"""Damage of one run never keeps the others from report, status and figures; each says which file it is."""

from __future__ import annotations

import csv
import dataclasses
import shutil
from pathlib import Path

import finished
import pytest
import tiny
from commands import command
from flips import flip

from pipeline.core import files
from pipeline.models.info import ModelInfo
from pipeline.runs.folder import Run
from pipeline.runs.identity import run_id
from pipeline.study import paper


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    finished.make_grid(folder, tiny.make_shards(folder), methods=("supervised",))
    return folder


@pytest.fixture
def folder(source: Path, tmp_path: Path) -> Path:
    shutil.copytree(source, tmp_path / "copy")
    return tmp_path / "copy"


@pytest.fixture
def run(folder: Path) -> Run:
    """One of the finished fine-tunes: the first seed with all labels."""
    (ref,) = {
        tiny.DatasetRef(name="tiny", fingerprint=files.read_json(path)["fingerprint"])
        for path in folder.glob("shards/*/manifest.json")
    }
    spec = next(s for s in finished.specs(ref, paper.SEEDS[0]) if s.pretrain is None and s.label_fraction == 1.0)
    return Run(folder / "runs" / run_id(spec))


def report(folder: Path) -> str:
    ended = command("report", "--grid", "mine.py", "--cluster", "here.toml", cwd=folder)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def rows_of_networks(text: str) -> list[list[str]]:
    """The rows of single networks in the table of all label fractions, which has scores alone."""
    return [line.split() for line in text.splitlines() if line.startswith("Supervised  test_") and "(2)" in line]


def intervals(folder: Path, run: Run) -> tuple[int, int]:
    """How many cells with the run, and how many without it, have an interval.

    Without damage the run is in its own cell and in the mean of both networks, which keeps the other seed.
    """
    with open(folder / "reports" / "mine" / "report.csv", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["in_table"] == "1" and row["low"]]
    own = sum(run.id in row["runs"] for row in rows)
    return own, len(rows) - own


def test_without_damage_every_cell_has_an_interval_and_nothing_is_said(folder: Path, run: Run) -> None:
    text = report(folder)
    assert "damaged" not in text and "no checksums" not in text
    assert intervals(folder, run) == (2, 4)


@pytest.mark.parametrize("truncated", [True, False])
def test_damaged_predictions_cost_the_interval_of_their_cell(folder: Path, run: Run, truncated: bool) -> None:
    before = report(folder)
    if truncated:
        run["predictions"].write_bytes(run["predictions"].read_bytes()[:1000])
    else:
        flip(run["predictions"], 8 * 1000)
    text = report(folder)
    assert intervals(folder, run) == (1, 4)
    assert f"damaged runs (launch --retry makes them again):\n  {run.id}: " in text and "predictions.parquet" in text
    assert (whole := rows_of_networks(before)) and whole == rows_of_networks(text)
    status = command("status", "--grid", "mine.py", "--cluster", "here.toml", "--failed", cwd=folder)
    assert f"{run.id}" in status.stdout and "predictions.parquet" in status.stdout and "1 damaged" in status.stdout


@pytest.mark.parametrize("content", [b"{}", b"[]", b"\xff", b'{"metrics": {"f1_micro": 1}}'])
def test_a_damaged_result_costs_its_seed(folder: Path, run: Run, content: bytes) -> None:
    run["result"].write_bytes(content)
    text = report(folder)
    assert "(1 of 2)" in text and f"  {run.id}: " in text and "result.json" in text
    for arguments in (["--grid", "mine.py", "--failed", "--cluster", "here.toml"], ["--cluster", "here.toml"]):
        status = command("status", *arguments, cwd=folder)
        assert status.returncode == 0 and "1 damaged" in status.stdout and "result.json" in status.stdout


def test_predictions_of_earlier_code_that_cannot_be_read_are_damage_too(folder: Path, run: Run) -> None:
    files.write_json(run["result"], dataclasses.asdict(run.result()))
    text = report(folder)
    assert "1 finished runs are of earlier code and have no checksums" in text and intervals(folder, run) == (2, 4)
    run["predictions"].write_bytes(run["predictions"].read_bytes()[:1000])
    text = report(folder)
    assert "predictions.parquet cannot be read" in text and intervals(folder, run) == (1, 4)
    assert run.state() == "damaged"


def test_figures_leave_damaged_runs_out_and_say_so(folder: Path, run: Run) -> None:
    flip(run["predictions"], 8 * 1000)
    drawn = command("figures", "--grid", "mine.py", "--cluster", "here.toml", "--only", "confusion", cwd=folder)
    assert drawn.returncode in (0, 1) and "predictions.parquet was changed" in drawn.stdout + drawn.stderr
    assert run.state() == "damaged"


def test_a_damaged_run_is_neither_exported_nor_used(folder: Path, run: Run) -> None:
    flip(run["weights"], 8 * 100_000)
    for arguments in (("export", run.id, "--out", "out"), ("predict", run.id, ".")):
        (folder / "a.png").write_bytes((next(folder.glob("raw/*/*.png"))).read_bytes())
        ended = command(*arguments, "--cluster", "here.toml", cwd=folder)
        assert ended.returncode == 2 and "weights.safetensors was changed" in ended.stderr
    assert not (folder / "out").exists()
    assert "launch its grid with --retry" in ended.stderr


def test_an_export_names_its_weights_and_predict_compares_them(folder: Path, run: Run) -> None:
    ended = command("export", run.id, "--out", "out", "--cluster", "here.toml", cwd=folder)
    assert ended.returncode == 0, ended.stderr
    out = folder / "out"
    assert files.read_json(out / "run.json")["files"]["model.safetensors"]["sha256"] == files.sha256_file(
        out / "model.safetensors"
    )
    assert ModelInfo.of_export(out).run == run.id
    flip(out / "model.safetensors", 8 * 100_000)
    image = next(folder.glob("raw/*/*.png"))
    ended = command("predict", "out", image, "--cluster", "here.toml", cwd=folder)
    assert ended.returncode == 2 and "model.safetensors was changed" in ended.stderr
    assert "copy the export again, or export the run again" in ended.stderr
