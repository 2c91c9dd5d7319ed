"""The command that prints what runs printed."""

from __future__ import annotations

import subprocess
import sys

import pytest

from pipeline.core import files


@pytest.fixture
def folder(tmp_path):
    for name in ("tiny-cass-s77-aaaaaaaaaaaa", "tiny-cass-s78-bbbbbbbbbbbb"):
        files.write_json(tmp_path / "runs" / name / "spec.json", {})
    (tmp_path / "runs" / "tiny-cass-s77-aaaaaaaaaaaa" / "log.txt").write_text("epoch=0 loss=1\n")
    return tmp_path


def logs(folder, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pipeline.logs", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


def test_any_part_that_names_one_run_shows_its_log(folder):
    for part in ("tiny-cass-s77-aaaaaaaaaaaa", "s77", "aaaa"):
        assert logs(folder, part).stdout == "epoch=0 loss=1\n"
    assert logs(folder, "s77", "--follow").stdout == "epoch=0 loss=1\n"  # it has ended


def test_a_part_that_several_runs_have_or_none_is_an_error(folder):
    done = logs(folder, "cass")
    assert done.returncode == 2 and "could be any of 2 runs" in done.stderr
    done = logs(folder, "dino")
    assert done.returncode == 2 and "there is no run 'dino'" in done.stderr


def test_a_run_that_has_printed_nothing_is_reported(folder):
    done = logs(folder, "s78")
    assert done.returncode == 0 and "has printed nothing yet" in done.stderr
