"""Frozen features as a technique: a network as it is, and k-NN or a linear classifier on its features; no training.

The bar that pretraining and fine-tuning have to clear. A run of this kind fills a cell of a table as a fine-tune does:
the same labels, the same test images, the same scores.
"""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipeline.core import disks, files
from pipeline.data.pixel_map import open_pixels
from pipeline.data.shards.index import Shards, shards_of
from pipeline.data.splits import label_fraction
from pipeline.learn import backbones, metrics, probes
from pipeline.learn.hardware import Hardware
from pipeline.learn.program import Counters
from pipeline.learn.samples import Samples, labelled
from pipeline.learn.weights import weights_file
from pipeline.runs.cluster import Cluster
from pipeline.runs.folder import Run
from pipeline.runs.identity import run_id
from pipeline.runs.predictions import write_predictions
from pipeline.runs.spec import FinetuneSpec


def judge(
    spec: FinetuneSpec, run: Run, cluster: Cluster, hardware: Hardware
) -> tuple[dict[str, Any], Counters, dict[str, Any]]:
    """Store the predictions of validation and test images and score the latter; returns (metrics, counters, notes)."""
    before = time.monotonic()
    shards = shards_of(Path(cluster.shards), spec.dataset, size=spec.image_size)
    rows = shards.of_split("train")
    chosen = label_fraction(shards.labels(rows), shards.classes, spec.label_fraction, spec.seed)
    train, learnt_from = labelled(shards, [rows[i] for i in chosen])
    val, test = (labelled(shards, shards.of_split(part)) for part in ("val", "test"))
    if not (len(train) and len(test[0])):
        part = "test" if len(train) else "train"
        raise ValueError(f"{spec.dataset.name} has no labelled image in {part}; judging frozen features needs some")
    features = all_features(spec, shards, cluster, hardware)
    if not all(np.isfinite(features[rows]).all() for rows in (train, val[0], test[0])):
        raise ValueError(f"the features of {spec.backbone} are not finite in {hardware.precision}; use float32")
    task = str(shards.manifest["task"])
    with probes.reproducible():
        if spec.probe == "knn":
            classify = partial(probes.knn, features[train], learnt_from)
        else:
            classify = probes.linear(features[train], learnt_from, single=task == "multi-class")
        for name, (judged, targets) in (("val_predictions", val), ("predictions", test)):
            if len(judged):
                keys, scores = [shards.rows["key"][row] for row in judged], classify(features[judged])
                write_predictions(run[name], keys, shards.classes, targets, scores)
    found = metrics.score(targets.astype(int), scores.astype(np.float32), shards.classes, task)
    counters = Counters(images=len(features), seconds=time.monotonic() - before)
    return found, counters, {"labelled_pictures": len(train), "probe": spec.probe}


def all_features(spec: FinetuneSpec, shards: Shards, cluster: Cluster, hardware: Hardware) -> np.ndarray:
    """The features of all images of the shards, float32 [n, width]: computed once for each network, kept on scratch."""
    parent = None if spec.pretrain is None else Run(Path(cluster.runs) / run_id(spec.pretrain))
    source = parent["weights"] if parent else None
    if parent is None and spec.weights != "random":
        source = weights_file(spec.backbone, Path(cluster.weights), spec.given)
    facts = {
        "images": shards.index_checksum,
        "network": [spec.backbone, spec.arm if parent else "", files.sha256_file(source) if source else spec.seed],
        "arguments": dict(spec.given.arguments) if spec.given else {},
        "classes": 0 if source else len(shards.classes),  # the draw of random weights depends on the head's width
        "normalised": [spec.augment.mean, spec.augment.std],
        "hardware": asdict(hardware),
        "libraries": [torch.__version__, backbones.timm_version()],
    }
    key = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]
    path = files.own_if_unreadable(cluster.scratch_folder / f"features-{shards.name}-{key}.npy")
    path.parent.mkdir(parents=True, exist_ok=True)
    with files.lock(path.with_suffix(".lock"), patience=3600, what=str(path)):
        if path.exists():
            kept: np.ndarray = np.load(path)
            return kept
        samples = Samples(open_pixels(shards, cluster), np.arange(len(shards.rows["key"])), hardware.torch_device)
        network = backbones.start_of(spec, len(shards.classes), cluster).to(hardware.torch_device)
        features = probes.features(network, samples, spec.augment, hardware)
        try:
            with files.publish(path) as out:
                np.save(out, features)
        except OSError as error:
            print(f"the features are not kept for other runs: {disks.error_text(error)}", flush=True)
    return features
