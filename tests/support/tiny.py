"""A tiny dataset and tiny runs on it, for tests that train."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pipeline.core import files
from pipeline.core.console import silent as quiet
from pipeline.data.datasets.toy import draw
from pipeline.data.layouts import Folder
from pipeline.data.shards import write
from pipeline.data.shards.index import Shards
from pipeline.data.shards.transcode import Settings
from pipeline.runs import cluster
from pipeline.runs.cluster import Cluster
from pipeline.runs.folder import Run
from pipeline.runs.identity import run_id
from pipeline.runs.spec import DatasetRef, FinetuneSpec, PretrainSpec, Spec
from pipeline.study import paper

SIZE = 32
BACKBONES = (
    paper.Backbone("test_resnet.r160_in1k", "tiny ResNet", paper.CNN),
    paper.Backbone("test_vit.r160_in1k", "tiny ViT", paper.TRANSFORMER),
)


def make_shards(folder: Path, *, each: int = 40, unlabelled: int = 10) -> Shards:
    """Shards of two classes of drawn shapes under `folder`/shards."""
    raw = folder / "raw"
    for label, count in {"disc": each, "cross": each, "unlabelled": unlabelled}.items():
        (raw / label).mkdir(parents=True)
        for number in range(count):
            shape = label if label != "unlabelled" else "disc"
            Image.fromarray(draw(shape, np.random.default_rng([len(label), number]))).save(
                raw / label / f"{number}.png"
            )
    return shard(Folder("tiny", "folder"), raw, folder / "shards")


def shard(dataset: Folder, raw: Path, out: Path, *, split: str = "image") -> Shards:
    """Shards of any images at this file's size."""
    settings = Settings(size=SIZE, split=split, format="png", quality=None, keep_names=False)
    dataset.label_fractions = (0.5, 1.0)
    plan = write.make_plan(dataset, raw, settings, workers=1, progress=quiet)
    return write.write(plan, out, workers=1, max_bad=0, strict=True, progress=quiet)


def make_cluster(folder: Path, **changes: Any) -> Cluster:
    paths = {name: str(folder / name) for name in cluster.PATHS}
    return Cluster(**{**paths, "device": "cpu", "checkpoint_minutes": 0.0, **changes})


def make_pretrain(shards: Shards, **changes: Any) -> PretrainSpec:
    ref = DatasetRef(name=shards.name, fingerprint=shards.fingerprint)
    spec = paper.cass(
        ref,
        preset=paper.preset("paper"),
        seed=77,
        backbones=BACKBONES,
        weights="random",
        optims=(dataclasses.replace(paper.PRETRAIN_OPTIM, lr=1e-4),) * 2,
        epochs=4,
        batch_size=8,
        image_size=SIZE,
    )
    return dataclasses.replace(spec, **changes)


SMALL = {"out_dim": 64, "hidden": 32}  # DINO's head


def make_dino(shards: Shards, *, method: str = "dino", arm: int = 0, **changes: Any) -> PretrainSpec:
    """A run of `dino` or `dino_fb` on one of the tiny backbones."""
    build = {"dino": paper.dino, "dino_fb": paper.dino_fb}[method]
    spec = build(
        DatasetRef(name=shards.name, fingerprint=shards.fingerprint),
        preset=paper.preset("paper"),
        seed=77,
        backbone=BACKBONES[arm],
        weights="random",
        epochs=3,
        batch_size=8,
        image_size=SIZE,
        options=SMALL if method == "dino" else {**SMALL, "bottleneck": 16, "local_crops": 3},
    )
    return dataclasses.replace(spec, **changes)


def make_finetune(shards: Shards, pretrain: PretrainSpec | None, *, arm: int = 0, **changes: Any) -> FinetuneSpec:
    ref = DatasetRef(name=shards.name, fingerprint=shards.fingerprint)
    spec = paper.finetune(
        ref,
        BACKBONES[arm],
        pretrain=pretrain,
        label_fraction=1.0,
        preset=paper.preset("paper"),
        seed=77,
        weights="random",
        epochs=4,
        batch_size=8,
        image_size=SIZE,
    )
    return dataclasses.replace(spec, **changes)


def announce(spec: Spec, site: Cluster) -> Run:
    """The run folder of a spec, ready for a task."""
    run = Run(Path(site.runs) / run_id(spec))
    run.announce(spec)
    files.write_json(run["job"], cluster.to_json(site))
    return run
