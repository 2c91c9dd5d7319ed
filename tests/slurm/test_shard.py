"""Sharding as an array on a real Slurm: the bytes of one machine, and nothing sent twice."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sites import SLURM
from test_interruptions import wait

from pipeline.core import files
from pipeline.jobs.slurm import scheduler

pytestmark = pytest.mark.usefixtures("devcluster")


def shard(folder: Path, *more: str) -> str:
    command = [sys.executable, "-m", "pipeline.shard", "mine", "--layout", "folder", "--raw", "raw", "--size", "32"]
    done = subprocess.run([*command, *more], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def contents(out: Path) -> dict[str, str]:
    return {path.name: files.sha256_file(path) for path in out.glob("mine-*/*") if path.suffix in (".tar", ".parquet")}


def test_tasks_write_the_tars_and_a_job_after_them_the_index(tmp_path):
    rng = np.random.default_rng(0)
    for number in range(60):
        path = tmp_path / "raw" / ("cat", "dog")[number % 2] / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)).save(path)
    (tmp_path / "site.toml").write_text(SLURM.format(shards="shards", ray="false"))
    shard(tmp_path, "--out", "calm")

    said = shard(tmp_path, "--out", "shards", "--cluster", "site.toml")
    assert said.count("sent ") == 2
    again = shard(tmp_path, "--out", "shards", "--cluster", "site.toml")
    assert "sent " not in again or "nothing was sent" in again
    jobs = next((tmp_path / "shards" / ".jobs").iterdir())
    wait(lambda: not scheduler.queued_jobs(jobs), "the jobs to end")
    assert contents(tmp_path / "shards") == contents(tmp_path / "calm") != {}
    assert "is complete already" in shard(tmp_path, "--out", "shards", "--cluster", "site.toml")
