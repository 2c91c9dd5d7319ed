"""Decisions pinned: the commands answer at once without torch, the floors hold, the plan scales."""

from __future__ import annotations

import subprocess
import sys

import pytest
from conftest import ROOT

COMMANDS = (
    "shard",
    "launch",
    "status",
    "logs",
    "cancel",
    "report",
    "figures",
    "clean",
    "prefetch",
    "standin",
    "verify",
    "download",
    "export",
    "predict",
    "bench",
)
HEAVY = ("torch", "timm", "torchvision", "ray", "submitit", "webdataset", "sklearn")


def run_watched(arguments: list[str], folder) -> subprocess.CompletedProcess[str]:
    """Run a command and print, last, which heavy libraries it imported."""
    code = (
        "import atexit, runpy, sys\n"
        f"atexit.register(lambda: print('IMPORTED', [n for n in {HEAVY!r} if n in sys.modules]))\n"
        f"sys.argv = {arguments!r}\n"
        f"runpy.run_module('pipeline.{arguments[0]}', run_name='__main__')\n"
    )
    return subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_every_door_imports_nothing_heavy(command, tmp_path):
    done = run_watched([command, "--help"], tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"python -m pipeline.{command}" in done.stdout
    assert done.stdout.strip().endswith("IMPORTED []")


@pytest.mark.parametrize(
    "arguments",
    [
        ["launch", "--grid", "main", "--dry-run"],
        ["status", "--grid", "main"],
        ["report", "--grid", "main"],
        ["figures", "--grid", "main"],
    ],
)
def test_planning_status_and_tables_import_nothing_heavy(arguments, tmp_path):
    done = run_watched(arguments, tmp_path)
    assert done.returncode in (0, 3), done.stderr  # 3: the shards are not there
    assert done.stdout.strip().endswith("IMPORTED []")


def test_every_door_is_tried_here():
    named = {path.stem for path in (ROOT / "pipeline").glob("*.py") if "run_command(main)" in path.read_text()}
    assert named == set(COMMANDS)


@pytest.mark.parametrize(
    ("command", "flags"),
    [
        ("launch", {"--jobs", "--dry-run", "--retry", "--no-ray", "--print-sbatch"}),
        ("status", {"--watch", "--failed", "--json"}),
        ("cancel", {"--yes"}),
        ("report", {"--out", "--html", "--with-images", "--with-pictures"}),
        ("figures", {"--out", "--only", "--with-images", "--with-pictures", "--rollout"}),
    ],
)
def test_no_flag_changes_science(command, flags):
    """A scientific number is a Spec field in a grid, never a flag; a new flag is weighed here first."""
    import importlib

    parser = importlib.import_module(f"pipeline.{command}").parser()
    found = {option for action in parser._actions for option in action.option_strings if option.startswith("--")}
    grid = {"--grid", "--datasets", "--seeds", "--preset", "--cluster"}
    assert found - {"--help", "--wait", "--no-wait"} == grid | flags


def test_the_learning_floor_runs_without_the_schedulers_and_webdataset():
    code = (
        "import sys\n"
        "for name in ('ray', 'submitit', 'webdataset'):\n"
        "    sys.modules[name] = None\n"
        "import pipeline.learn.pretrain, pipeline.learn.finetune, pipeline.learn.methods.cass, pipeline.jobs.execute\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
