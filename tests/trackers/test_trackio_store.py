"""Runs in Trackio's store, written by Trackio in an environment of its own and read again as SQLite."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
import tracked
from repository import ROOT

from pipeline.runs.folder import Run
from pipeline.trackers.to_trackio import DIGEST, Trackio, rows_of

PYTHON = ROOT / ".venv-trackio" / "bin" / "python"
FLAGS = ("--grid", "mine.py", "--cluster", "here.toml", "--to", "trackio")
KILLED = """
import os, signal, sys
from trackio.sqlite_storage import SQLiteStorage
name, when = sys.argv.pop(1).split()
call = getattr(SQLiteStorage, name)
def killed(*arguments, **options):
    if when == "after":
        call(*arguments, **options)
    os.kill(os.getpid(), signal.SIGKILL)
setattr(SQLiteStorage, name, killed)
sys.path.insert(0, "")
from pipeline import track
track.main()
"""


def track(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    paths = os.pathsep.join([str(ROOT), str(ROOT / "tests" / "support")])
    env = {**os.environ, "PYTHONPATH": paths, "TRACKIO_DIR": str(folder / "reports" / "trackio")}
    command = [str(PYTHON), *(words or ("-m", "pipeline.track")), *FLAGS]
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=300)


def stored(folder: Path) -> tuple[dict[str, list[tuple[int, dict[str, float]]]], dict[str, dict[str, object]]]:
    """The points of each run in order, and its configuration."""
    points: dict[str, list[tuple[int, dict[str, float]]]] = {}
    with sqlite3.connect(folder / "reports" / "trackio" / "cass-pipeline.db") as database:
        for run, step, values in database.execute("SELECT run_id, step, metrics FROM metrics ORDER BY id"):
            points.setdefault(run, []).append((step, json.loads(values)))
        return points, {run: json.loads(text) for run, text in database.execute("SELECT run_id, config FROM configs")}


def check_equal(folder: Path, runs: list[Run]) -> None:
    points, configs = stored(folder)
    records = [tracked.record(run) for run in runs]
    assert points == {record.id: rows_of(record) for record in records}
    assert {name: config[DIGEST] for name, config in configs.items()} == {each.id: each.digest for each in records}
    assert all(record.params.items() <= configs[record.id].items() for record in records)


@pytest.mark.skipif(not PYTHON.exists(), reason="make trackio has not made .venv-trackio")
def test_the_store_holds_each_point_once_whatever_happened(tmp_path: Path) -> None:
    runs = tracked.grid(tmp_path)
    done = track(tmp_path)
    assert done.returncode == 0 and "4 new; 14 runs have not started" in done.stdout, done.stderr
    check_equal(tmp_path, runs)
    assert configured(tmp_path, runs[0])["cass.method"] == "supervised"
    assert "4 as they were" in track(tmp_path).stdout
    for epochs, point in enumerate(("delete_run after", "bulk_log before", "bulk_log after"), start=4):
        tracked.train(runs[2], epochs, speed=10.0 * epochs)  # resumed from a checkpoint
        assert track(tmp_path, "-c", KILLED, point).returncode == -signal.SIGKILL
    tracked.finish(runs[2])
    assert "1 continued, 3 as they were" in track(tmp_path).stdout
    check_equal(tmp_path, runs)
    assert configured(tmp_path, runs[2])["cass.state"] == "done"
    assert stored(tmp_path)[0][runs[2].id][-1] == (60, tracked.record(runs[2]).result)


def configured(folder: Path, run: Run) -> dict[str, object]:
    return stored(folder)[1][run.id]


def test_without_trackio_the_error_says_where_it_belongs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "trackio", None)
    monkeypatch.setenv("TRACKIO_DIR", "")  # which it changes
    with pytest.raises(ValueError, match="trackio is not installed; it needs an older Pillow.*make trackio"):
        Trackio(tmp_path, "mine")
