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


def grid(folder: Path) -> list[Run]:
    """A grid file mine.py and a cluster file here.toml; of its 18 runs, 4 that have started: two that are done, an
    interrupted and a failed one."""
    made = tiny.make_shards(folder, each=10, unlabelled=0)
    text = finished.GRID.format(name=made.name).replace(
        "ref, seed)", "ref, seed) if finished.method_of(spec) != 'dino'"
    )
    (folder / "mine.py").write_text(text)
    (folder / "here.toml").write_text(f'executor = "local"\nshards = "{made.folder.parent}"\ndevice = "cpu"\n')
    site = tiny.make_cluster(folder)
    supervised = [spec for spec in finished.specs(tiny.ref(made), 77) if spec.pretrain is None]
    runs = [tiny.announce(spec, site) for spec in supervised]
    for number, run in enumerate(runs):
        train(run, number + 1)
    for run in runs[:2]:
        finish(run)
    files.write_text(runs[3]["error"], "Traceback\nValueError: no\n")
    return runs


def record(run: Run) -> Record:
    return run_record(run, run.spec, run.state(), "mine")
