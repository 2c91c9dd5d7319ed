"""Planning the paper's main experiment for its cluster, without the cluster."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import indexes
import pytest
from repository import ROOT


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with the indexes of all four datasets, and an empty one to be PATH."""
    made = tmp_path_factory.mktemp("main")
    indexes.write_all(made / "shards", ROOT.parent / "shared" / "data" / "isic2019_labels_full")
    (made / "bin").mkdir()
    return made


def dry_run(folder, *flags: str) -> tuple[int, str]:
    command = [sys.executable, "-m", "pipeline.launch", "--grid", "main", "--dry-run", "--cluster", "rtx8000", *flags]
    env = {**os.environ, "PATH": str(folder / "bin"), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


def test_the_main_grid_is_planned_as_arrays_with_hours_storage_and_what_is_missing(folder):
    code, out = dry_run(folder)
    assert code == 3
    assert re.search(r"^pretrain +60 ", out, re.MULTILINE) and re.search(r"^finetune +300 ", out, re.MULTILINE)
    assert re.search(r"^main\.isic\.cass\.s77-81 +5 +5 +5$", out, re.MULTILINE)
    assert re.search(r"^main\.isic\.cass\.finetune\.s77-81 +2 +2 +30 +afterany 5 runs$", out, re.MULTILINE)
    assert re.search(r"^main\.isic\.supervised\.finetune\.s77-81 +2 +2 +30$", out, re.MULTILINE)
    assert "GPU-hours: " in out and "by Table 2" in out and "storage: " in out
    assert "not on PATH: sbatch, squeue, scontrol, srun" in out
    assert "ImageNet weights of resnet50.a1_in1k" in out
    assert not (folder / "runs").exists()


def test_ten_thousand_runs_are_planned(folder):
    code, out = dry_run(folder, "--seeds", "140")
    assert code == 3
    assert re.search(r"^pretrain +1680 ", out, re.MULTILINE) and re.search(r"^finetune +8400 ", out, re.MULTILINE)


def test_the_whole_paper_is_planned_as_tables_1_to_21(folder):
    code, out = dry_run(folder, "--grid", "paper")
    assert code == 3
    (heading,) = [line for line in out.splitlines() if line.startswith("table ")]
    assert heading.split() == "table dataset experiment rows × columns fine-tunes pretraining runs shared".split()
    rows = re.findall(r"^ *(\d+)  .* (\d+ × \d+) +(\d+) +(\d+) +(\d+)$", out, re.MULTILINE)
    assert [int(row[0]) for row in rows] == list(range(1, 22))
    assert rows[0][1:] == ("12 × 6", "300", "60", "360") and rows[5][1:] == ("6 × 3", "90", "15", "0")
