"""A folder to launch in, with shards, a cluster file and a small grid file, driven by the commands."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from repository import ROOT

from pipeline.runs.folder import Run

GRID = """
import dataclasses
import tiny
IMAGE_SIZE = 32
DATASETS = ("tiny",)
SEEDS = {seeds}

def grid(datasets, seeds, preset):
    out = []
    for info in datasets:
        class shards:
            name, fingerprint = info.ref.name, info.ref.fingerprint
        for seed in seeds:
            pretrain = tiny.make_pretrain(shards, seed=seed, epochs={epochs})
            {change}
            if {alone}:
                out.append(pretrain)
                continue
            out.append(tiny.make_finetune(shards, pretrain, arm=0, seed=seed, epochs={finetune_epochs}))
            out.append(tiny.make_finetune(shards, None, arm=1, seed=seed, epochs={finetune_epochs}))
    return out
"""
BROKEN = "pretrain = dataclasses.replace(pretrain, method=dataclasses.replace(pretrain.method, revision=99))"
LOCAL = """
executor = "local"
shards = "{shards}"
device = "cpu"
ray = false
checkpoint_minutes = 60.0
"""
SLURM = """
executor = "slurm"
shards = "{shards}"
device = "cpu"
ray = {ray}
checkpoint_minutes = 60.0
[slurm]
partition = "main"
gres = "gpu:rtx8000:1"
memory_gb = 4
hours = 1
signal_seconds = 60
"""


class Site:
    """One pretraining run a seed, a fine-tune of it, and a supervised one."""

    def __init__(self, folder: Path, shards: Path, *, cluster: str = LOCAL, ray: bool = False) -> None:
        self.folder = folder
        (folder / "here.toml").write_text(cluster.format(shards=shards, ray=str(ray).lower()))
        self.write_grid()

    def write_grid(
        self,
        *,
        seeds: int = 1,
        epochs: int = 2,
        finetune_epochs: int = 2,
        change: str = "pass",
        alone: bool = False,
    ) -> None:
        """alone: the pretraining runs without fine-tunes, where those would only take time."""
        text = GRID.format(seeds=seeds, epochs=epochs, finetune_epochs=finetune_epochs, change=change, alone=alone)
        (self.folder / "mine.py").write_text(text)

    def command(self, command: str, *arguments: str) -> list[str]:
        grid = [] if command == "logs" else ["--grid", "mine.py"]
        program = ["quick", command] if "--wait" in arguments else [f"pipeline.{command}"]
        return [sys.executable, "-m", *program, *grid, "--cluster", "here.toml", *arguments]

    def start(self, command: str, *arguments: str) -> subprocess.Popen[str]:
        env = {**os.environ, "PYTHONPATH": str(ROOT / "tests" / "support")}
        pipe = subprocess.PIPE
        return subprocess.Popen(
            self.command(command, *arguments),
            cwd=self.folder,
            env=env,
            stdout=pipe,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, command: str, *arguments: str) -> tuple[int, str]:
        with self.start(command, *arguments) as process:
            try:
                out, _ = process.communicate(timeout=300)
            except subprocess.TimeoutExpired:
                process.kill()
                raise
        return process.returncode, out

    def runs(self) -> dict[str, Run]:
        """The run folders by the middle of their names: cass, cass-…, supervised-…, and the seed where it is not 77."""
        found = [path.parent for path in (self.folder / "runs").glob("*/spec.json")]
        names = {folder: folder.name.removeprefix("tiny-").rsplit("-", 1)[0].removesuffix("-s77") for folder in found}
        return {name: Run(folder) for folder, name in names.items()}

    def wait_for_a_step(self, name: str, *, after: int = 0) -> Run:
        """Wait until the run has written its progress, later than `after` (a time in nanoseconds)."""
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            run = self.runs().get(name)
            if run is not None and run["progress"].exists() and run["progress"].stat().st_mtime_ns > after:
                return run
            time.sleep(0.05)
        raise AssertionError(f"{name} took no step in two minutes")
