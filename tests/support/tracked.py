"""Runs whose folders a test writes line by line, for tests of what tells trackers of them."""

from __future__ import annotations

from pathlib import Path

import finished
import tiny

from pipeline.core import files
from pipeline.runs.folder import Run
from pipeline.trackers.record import Record, run_record


class shards:
    name, fingerprint = "tiny", "0" * 16


def pretrain(folder: Path, seed: int = 77) -> Run:
    return tiny.announce(tiny.make_pretrain(shards, seed=seed), tiny.make_cluster(folder))


def finetune(folder: Path, seed: int = 77) -> Run:
    spec = tiny.make_finetune(shards, None, arm=0, seed=seed, label_fraction=0.5)
    return tiny.announce(spec, tiny.make_cluster(folder))


def train(run: Run, epochs: int, *, speed: float = 100.0, off: float = 0.0) -> None:
    """Its first epochs of 10 steps; speed: images a second, the only number that differs after a resume."""
    rows = [
        {"epoch": epoch, "step": 10 * (epoch + 1), "loss": 1 / (epoch + 1) + off, "images_per_second": speed}
        for epoch in range(epochs)
    ]
    rows[0]["start"] = {"cnn_val_knn": 0.25}
    files.write_jsonl(run["metrics"], rows)
    if not run["start"].exists():
        files.write_json(run["start"], {"hardware": {"model": "CPU A", "precision": "float32"}, "inputs": {}})


def finish(run: Run) -> None:
    run.finish(finished.result(run.spec, {"f1_macro": 0.5, "per_class": {"naevus (benign)": {"f1": 0.25}}}))


def record(run: Run) -> Record:
    return run_record(run, run.spec, run.state(), "mine")
