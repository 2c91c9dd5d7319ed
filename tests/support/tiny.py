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
from pipeline.data.layouts import UserDataset
from pipeline.data.shards.index import Shards
from pipeline.data.shards.plan import make_plan
from pipeline.data.shards.transcode import ShardSettings
from pipeline.data.shards.write import write_shards
from pipeline.runs import cluster
from pipeline.runs.cluster import Cluster
from pipeline.runs.folder import Run
from pipeline.runs.identity import run_id
from pipeline.runs.spec import DatasetRef, FinetuneSpec, PretrainSpec, Spec
from pipeline.study import paper, recipes

SIZE = 32
BACKBONES = (
    paper.Backbone("test_resnet.r160_in1k", "tiny ResNet", paper.CNN, weights="random"),
    paper.Backbone("test_vit.r160_in1k", "tiny ViT", paper.TRANSFORMER, weights="random"),
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
    return shard(UserDataset("tiny", "folder"), raw, folder / "shards")


def shard(dataset: UserDataset, raw: Path, out: Path, *, split: str = "image") -> Shards:
    """Shards of any images, at SIZE pixels."""
    settings = ShardSettings(size=SIZE, split=split, format="png", quality=None, keep_names=False)
    dataset.label_fractions = (0.5, 1.0)
    plan = make_plan(dataset, raw, settings, workers=1, progress=quiet)
    return write_shards(plan, out, workers=1, max_bad=0, strict=True, progress=quiet)


def make_cluster(folder: Path, **changes: Any) -> Cluster:
    """A machine with a CPU, and everything that it stores in `folder`."""
    paths = {name: str(folder / name) for name in cluster.PATHS}
    return Cluster(**{**paths, "device": "cpu", "checkpoint_minutes": 0.0, **changes})


def ref(shards: Shards) -> DatasetRef:
    """The dataset of these shards, as specs name it."""
    return DatasetRef(name=shards.name, fingerprint=shards.fingerprint)


def make_pretrain(shards: Shards, **changes: Any) -> PretrainSpec:
    """A run of CASS on the tiny backbones: 4 epochs, batches of 8."""
    spec = recipes.cass(ref(shards), BACKBONES, preset=paper.preset("paper"), seed=77)
    spec = recipes.with_optim(spec, dataclasses.replace(paper.PRETRAIN_OPTIM, lr=1e-4))
    return dataclasses.replace(spec, **{"epochs": 4, "batch_size": 8, "image_size": SIZE, **changes})


SMALL = {"out_dim": 64, "hidden": 32}  # DINO's head
DINOS: dict[str, tuple[recipes.Dino, paper.Options]] = {
    "dino": (recipes.VIT_PYTORCH, SMALL),
    "dino_fb": (recipes.FACEBOOK, {**SMALL, "bottleneck": 16, "local_crops": 3}),
}


def make_dino(shards: Shards, *, method: str = "dino", arm: int = 0, **changes: Any) -> PretrainSpec:
    """A run of `dino` or `dino_fb` on one of the tiny backbones: 3 epochs, batches of 8."""
    kind, options = DINOS[method]
    preset = paper.preset("paper")
    spec = recipes.dino(ref(shards), BACKBONES[arm], kind, preset=preset, seed=77, batch_size=8, image_size=SIZE)
    return dataclasses.replace(recipes.with_options(spec, options), **{"epochs": 3, **changes})


def make_finetune(shards: Shards, pretrain: PretrainSpec | None, *, arm: int = 0, **changes: Any) -> FinetuneSpec:
    """A fine-tune of one of the tiny backbones with all labels: 4 epochs, batches of 8."""
    spec = recipes.finetune(ref(shards), BACKBONES[arm], pretrain, preset=paper.preset("paper"), seed=77)
    return dataclasses.replace(spec, **{"epochs": 4, "batch_size": 8, "image_size": SIZE, **changes})


def announce(spec: Spec, site: Cluster) -> Run:
    """The folder of a run that is ready to be executed."""
    run = Run(Path(site.runs) / run_id(spec))
    run.announce(spec)
    files.write_json(run["job"], cluster.to_json(site))
    return run


def make_patients(folder: Path, *, patients: int = 60) -> Shards:
    """Shards of one to five images of each patient, of the classes `cross` and `disc`, split by patient.

    Every second patient with several images has images of both classes; every ninth image has no patient.
    """
    raw, rng = folder / "raw", np.random.default_rng(4)
    raw.mkdir(parents=True)
    rows, number = ["image,label,patient"], 0
    for patient in range(patients):
        for image in range(1 + patient % 5):
            label = ("cross", "disc")[(patient + (patient % 2 == 0 and image == 1)) % 2]
            Image.fromarray(draw(label, rng)).save(raw / f"p{patient:02d}-{image}.png")
            rows.append(f"p{patient:02d}-{image}.png,{label},{'' if number % 9 == 8 else f'p{patient:02d}'}")
            number += 1
    (raw / "labels.csv").write_text("\n".join(rows) + "\n")
    return shard(UserDataset("patients", "csv"), raw, folder / "shards", split="grouped")
