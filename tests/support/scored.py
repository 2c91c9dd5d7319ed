"""Cells whose runs have stored predictions of a chosen score, for tests of what compares them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import finished
import numpy as np

from pipeline.results.collect import Cell
from pipeline.runs.identity import run_id
from pipeline.runs.predictions import write_predictions
from pipeline.runs.spec import FinetuneSpec

CLASSES = ("a", "b")
METRICS = ("f1_micro", "f1_macro", "balanced_accuracy", "recall_micro", "accuracy", "auroc")


def score_cell(cell: Cell, scores: Mapping[int, float], *, images: int = 400) -> None:
    """Finish runs of a cell with these scores, by seed; the same images are hard for all cells of a dataset.

    Every image is of the first or the second class, as many of each, and as many of each are right: all metrics agree.
    """
    for seed, score in scores.items():
        run = cell.runs[seed]
        hard = np.random.default_rng(0).normal(size=images // 2)
        noise = np.random.default_rng([seed, sum(run.id.encode())]).normal(0, 0.5, size=images // 2)
        right = np.tile((hard + noise).argsort().argsort() < round(score * images / 2), 2)
        label = np.arange(images) // (images // 2)
        targets = np.eye(2, dtype=int)[label]
        named = np.eye(2)[np.where(right, label, 1 - label)]
        run.announce(spec_of(cell, seed, run.id))
        write_predictions(run["predictions"], list(map(str, range(images))), CLASSES, targets, 0.1 + 0.8 * named)
        found = {name: float(right.mean()) for name in METRICS} | {"majority": {"balanced_accuracy": 0.5}}
        run.finish(finished.result(cell.spec, found))
        cell.results[seed] = run.result()


def spec_of(cell: Cell, seed: int, identity: str) -> FinetuneSpec:
    """The spec of one seed of a cell."""
    pretrain = cell.spec.pretrain and dataclasses.replace(cell.spec.pretrain, seed=seed)
    spec = dataclasses.replace(cell.spec, seed=seed, pretrain=pretrain)
    assert run_id(spec) == identity
    return spec
