"""Fine-tunes for the benchmarks of fan-outs: folders of runs to execute, and the engines that execute them.

`python -m pipeline.benchmarks.support.trials ENGINE K RUN…` executes the runs in these folders, K at a time.
"""

from __future__ import annotations

import dataclasses
import importlib
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

from pipeline.benchmarks.support.measure import Settings
from pipeline.core import files
from pipeline.data.shards.index import Shards
from pipeline.jobs.execute import site_of
from pipeline.jobs.gpus import gpus
from pipeline.runs import cluster as clusters
from pipeline.runs.folder import Run
from pipeline.runs.identity import run_id
from pipeline.runs.spec import DatasetRef
from pipeline.study import paper, recipes


@dataclasses.dataclass(frozen=True)
class Workload:
    """What is fine-tuned."""

    backbone: paper.Backbone
    pixels: int
    epochs: int
    label_fraction: float = 1.0


WORKLOADS = {
    "cpu": Workload(paper.Backbone("resnet10t.c3_in1k", "ResNet-10-T", paper.CNN), 64, 2),
    "cuda": Workload(paper.RESNET50, paper.IMAGE_SIZE, 20),
    "quick": Workload(paper.Backbone("test_resnet.r160_in1k", "tiny ResNet", paper.CNN), 32, 1, 0.1),
}
ENGINES = {"processes": "worker processes", "ray_tune": "Ray Tune"}
"""Modules of `jobs/engines` and their names in tables."""


def is_installed(engine: str) -> bool:
    return engine == "processes" or find_spec("ray") is not None


def make_runs(
    settings: Settings, shards: Shards, workload: Workload, *, device: str, threads: int, count: int
) -> list[Run]:
    """Make folders of `count` runs that differ in their seeds; no run has started.

    Runs of an earlier call are deleted; the images that they decoded stay.
    """
    paths = {name: str(settings.scratch / "fanout" / name) for name in clusters.PATHS}
    paths["shards"] = str(shards.folder.parent)
    site = clusters.from_json({**paths, "device": device, "threads": threads})
    shutil.rmtree(site.runs, ignore_errors=True)
    runs = []
    for seed in range(count):
        spec = recipes.finetune(
            DatasetRef(name=shards.name, fingerprint=shards.fingerprint),
            dataclasses.replace(workload.backbone, weights="random"),
            preset=paper.preset("paper"),
            seed=seed,
            label_fraction=workload.label_fraction,
        )
        spec = dataclasses.replace(spec, epochs=workload.epochs, image_size=workload.pixels)
        runs.append(Run(Path(site.runs) / run_id(spec)))
        runs[-1].announce(spec)
        files.write_json(runs[-1]["job"], clusters.to_json(site))
    return runs


def command(engine: str, trials: int, runs: list[Run]) -> list[str]:
    """The command that executes the runs, `trials` at a time."""
    return [sys.executable, "-m", __name__, engine, str(trials), *(str(run.folder) for run in runs)]


if __name__ == "__main__":
    engine = importlib.import_module(f"pipeline.jobs.engines.{sys.argv[1]}")
    names = gpus(site_of(Run(Path(sys.argv[3]))))
    engine.run_trials(sys.argv[3:], trials=int(sys.argv[2]), gpus=names, stop=lambda: False)
