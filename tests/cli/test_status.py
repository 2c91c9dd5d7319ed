"""The states of runs without a grid, for how long `status --watch` stays, and shortened ids."""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path

import pytest
import tiny
from commands import command
from planned import planned_runs

from pipeline.cli import flags, progress, status_text
from pipeline.core import files
from pipeline.jobs import submissions
from pipeline.jobs.plan import Plan
from pipeline.study import paper


class shards:
    name, fingerprint = "tiny", "0" * 16


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    site = tiny.make_cluster(tmp_path, shards=str(tmp_path / "shards"))
    for seed in (77, 78, 79):
        tiny.announce(tiny.make_pretrain(shards, seed=seed), site)
    return tmp_path


def run_folder(folder: Path, seed: int) -> Path:
    (found,) = (folder / "runs").glob(f"*-s{seed}-*")
    return found


def test_status_without_a_grid_lists_every_run_in_the_folder(folder: Path) -> None:
    run_folder(folder, 78).joinpath("error.txt").write_text("Traceback\nValueError: bad \x1b[2J name\n")
    run_folder(folder, 79).joinpath("result.json").write_text("{}")
    done = command("status", cwd=folder)
    assert done.returncode == 0 and "1 pending, 1 failed, 1 damaged" in done.stdout, done.stdout
    assert "ValueError: bad \\x1b[2J name" in done.stdout and "\x1b" not in done.stdout
    assert "result.json" in done.stdout
    rows = json.loads(command("status", "--json", cwd=folder).stdout)["runs"]
    assert [row["state"] for row in rows] == ["pending", "failed", "damaged"]
    shown = command("status", "--failed", cwd=folder).stdout
    assert "log.txt" in shown and "-s77-" not in shown


def test_status_without_a_grid_or_a_run_says_where_it_looked(tmp_path: Path) -> None:
    done = command("status", cwd=tmp_path)
    assert done.returncode == 2 and f"there is no run in {tmp_path}" in done.stderr


def test_watch_stays_while_a_launch_lives_that_has_runs_to_start(folder: Path) -> None:
    runs = folder / "runs"
    waiting, ended = [{"state": "pending"}], [{"state": "done"}, {"state": "failed"}]
    assert not status_text.lives(waiting, runs)
    with submissions.launch_lives(runs), submissions.launch_lives(runs):
        assert status_text.lives(waiting, runs)
        assert not status_text.lives(ended, runs)
    assert not status_text.lives(waiting, runs)
    assert status_text.lives([{"state": "queued"}], runs) and status_text.lives([{"state": "running"}], runs)


def test_clean_restarts_a_run_by_a_part_of_its_id(folder: Path) -> None:
    files.write_json(run_folder(folder, 77) / "start.json", {"hardware": {}})
    done = command("clean", "--restart", "s77", cwd=folder)
    assert done.returncode == 0 and f"the next launch restarts {run_folder(folder, 77).name}" in done.stdout
    assert "could be any of 3 runs" in command("clean", "--restart", "cass", cwd=folder).stderr


def test_a_hint_for_another_command_is_quoted_for_the_shell() -> None:
    args = argparse.Namespace(
        grid="g$(touch PWNED)`id`.py", datasets="a b", seeds=2, preset="paper", weights=None, cluster="local"
    )
    assert flags.grid_flags(args) == "--grid 'g$(touch PWNED)`id`.py' --datasets 'a b' --seeds 2"


def test_a_log_gets_a_stamped_line_for_each_change_and_each_run_now_and_then(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = Plan("mine", tiny.make_cluster(tmp_path), paper.preset("paper"), [], [])
    plan.runs = {planned.run.id: planned for planned in planned_runs(tmp_path / "runs", seeds=(77,))}
    first, second = list(plan.runs.values())[:2]
    shown = progress.LaunchProgress()
    first.state = "running"
    shown.show(plan)
    said = capsys.readouterr().out
    assert re.fullmatch(rf"\d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d  running      {first.run.id}\n", said), said
    shown.show(plan)
    assert capsys.readouterr().out == ""
    monkeypatch.setattr(progress, "LOG_SECONDS", 0.0)
    second.state = "running"
    shown.show(plan)  # a change does not put the others' lines off
    lines = capsys.readouterr().out.splitlines()
    assert [line[21:] for line in lines] == [
        f"running      {second.run.id}",
        f"{first.run.id}: starting",
        f"{second.run.id}: starting",
        f"0 of {len(plan.runs)} runs done",
    ]
