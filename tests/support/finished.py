"""Finished runs that nobody trained, for tests of what reads runs: random weights and predictions, invented curves.

A grid file imports this too, so torch is imported only where runs are made.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tiny

from pipeline.core import files
from pipeline.data.shards.index import Shards
from pipeline.runs.cluster import Cluster
from pipeline.runs.folder import Run
from pipeline.runs.identity import run_id
from pipeline.runs.predictions import write_predictions
from pipeline.runs.result import Result
from pipeline.runs.spec import FinetuneSpec, PretrainSpec, method_of
from pipeline.study import experiments, paper
from pipeline.study.setting import DatasetInfo, Scale, TableEntry

GRID = """
import finished
IMAGE_SIZE = 32
DATASETS = ("{name}",)
SEEDS = 2

def grid(datasets, seeds, preset):
    return [spec for info in datasets for seed in seeds for spec in finished.specs(info.ref, seed)]
"""
FRACTIONS = (0.1, 1.0)


def specs(ref, seed: int) -> list[FinetuneSpec]:
    """CASS, DINO and supervised on both tiny backbones at two label fractions."""
    cass = tiny.make_pretrain(ref, seed=seed)
    out = []
    for index, arm in enumerate(cass.arms):
        dino = dataclasses.replace(cass, method=dataclasses.replace(cass.method, name="dino"), arms=(arm,))
        for pretrain in (cass, dino, None):
            for fraction in FRACTIONS:
                out.append(tiny.make_finetune(ref, pretrain, arm=index, seed=seed, label_fraction=fraction))
    return out


def finish(
    spec: PretrainSpec | FinetuneSpec,
    site: Cluster,
    shards: Shards,
    *,
    validation: bool = True,
    wrong: Collection[int] | None = None,
    collapsed: Sequence[str] = (),
    seconds: float = 1.0,
) -> Run:
    """A finished run of `spec`, the same every time; without `validation` as of code that stored no such scores.

    wrong: the positions of the test images that a fine-tune names wrongly, without weights; None: it scores them at
    random.
    """
    run = tiny.announce(spec, site)
    rng = np.random.default_rng([spec.seed, len(run.id), sum(run.id.encode())])
    files.write_jsonl(run["metrics"], [_row(spec, epoch, rng) for epoch in range(spec.epochs)])
    found, notes = {}, {}
    if isinstance(spec, FinetuneSpec):
        from pipeline.learn import backbones, metrics

        if wrong is None:
            seed = spec.seed + sum(method_of(spec).encode())
            model = _model(spec.backbone, len(shards.classes), spec.image_size, seed)
            backbones.save_arms(run["weights"], {"model": model}, {})
        gain = 2 + spec.label_fraction + 2 * (method_of(spec) == "cass")
        parts = {"test": "predictions"} | ({"val": "val_predictions"} if validation else {})
        drawn = {}
        for part, name in parts.items():
            rows = [row for row in shards.of_split(part) if shards.rows["labels"][row] is not None]
            targets = np.array([[name in names for name in shards.classes] for names in shards.labels(rows)], dtype=int)
            scores = 1 / (1 + np.exp(-rng.normal((2 * targets - 1) * gain / 2, 1.5)))
            if wrong is not None:
                scores = 0.1 + 0.8 * targets
                if part == "test":
                    scores[list(wrong)] = 1 - scores[list(wrong)]
            write_predictions(run[name], [shards.rows["key"][r] for r in rows], shards.classes, targets, scores)
            drawn[part] = targets, scores
        targets, scores = drawn["test"]
        found = metrics.score(targets, scores, shards.classes, str(shards.manifest["task"]))
        if method_of(spec) != "dino":  # those of DINO are as of earlier code, which fitted no temperature
            notes = {"calibration": {"temperature": float(rng.uniform(0.5, 2)), "images": 8}}
    elif method_of(spec) == "cass":  # those of DINO are as of earlier code, which had no probes
        found = {"probes": _probe(spec, run, rng)}
    made = result(spec, found, **notes)
    run.finish(dataclasses.replace(made, seconds=seconds, notes={**made.notes, "collapsed": list(collapsed)}))
    return run


def _probe(spec: PretrainSpec, run: Run, rng: np.random.Generator) -> dict[str, Any]:
    """Invented figures of probes, written into the run's rows as well."""
    probes = ("knn", *(f"linear_{100 * fraction:g}" for fraction in FRACTIONS))
    names = [f"{arm.name}_{part}_{probe}" for arm in spec.arms for part in ("val", "test") for probe in probes]
    start, end = ({name: float(rng.uniform(low, low + 0.2)) for name in names} for low in (0.4, 0.7))
    rows = files.read_jsonl(run["metrics"])
    rows[0]["start"] = start
    files.write_jsonl(run["metrics"], [*rows[:-1], {**rows[-1], **end}])
    images = {"train": 64, "val": 8, "test": 8}
    return {"metric": "f1_micro", "images": images, "labelled": {"10": 6, "100": 64}, "start": start, "end": end}


def result(spec: PretrainSpec | FinetuneSpec, found: dict[str, Any], **notes: Any) -> Result:
    return Result(
        metrics=found,
        seconds=1.0,
        images_per_second=1.0,
        epochs=spec.epochs,
        best_epoch=0,
        device="cpu",
        precision="float32",
        threads=1,
        code="c",
        versions={},
        notes={"collapsed": [], **notes},
    )


@functools.cache
def _model(backbone: str, outputs: int, image_size: int, seed: int):
    import torch

    from pipeline.learn import backbones

    torch.manual_seed(seed)
    return backbones.build(backbone, outputs=outputs, image_size=image_size, weights="random", folder=Path())


def _row(spec: PretrainSpec | FinetuneSpec, epoch: int, rng: np.random.Generator) -> dict[str, float]:
    decay = float(np.exp(-epoch / 3) + rng.normal(0, 0.03))
    row = {"epoch": epoch, "loss": 0.1 + decay}
    if isinstance(spec, PretrainSpec):
        for index, arm in enumerate(spec.arms):
            row |= {f"{arm.name}_spread": 0.6 * decay + 0.1 * index, f"{arm.name}_rank": 2 + 20 * decay}
        return row
    scores = {f"val_{name}": 0.9 - 0.5 * decay for name in ("f1_micro", "f1_macro", "balanced_accuracy", "auroc")}
    return {**row, "val_loss": 0.15 + decay, **scores}


def make_grid(
    folder: Path,
    shards: Shards,
    *,
    methods: Sequence[str] = ("cass", "dino", "supervised"),
    validation: bool = True,
) -> Path:
    """A grid file of the `specs` and the finished runs of those of these methods under `folder`/runs."""
    ref = tiny.DatasetRef(name=shards.name, fingerprint=shards.fingerprint)
    site = tiny.make_cluster(folder, shards=str(shards.folder.parent))
    done = set()
    for seed in paper.SEEDS[:2]:
        for spec in specs(ref, seed):
            for each in (spec.pretrain, spec):
                if each is not None and method_of(each) in methods and run_id(each) not in done:
                    done.add(run_id(each))
                    finish(each, site, shards, validation=validation)
    (folder / "mine.py").write_text(GRID.format(name=shards.name))
    (folder / "here.toml").write_text(f'executor = "local"\nshards = "{shards.folder.parent}"\ndevice = "cpu"\n')
    return folder / "mine.py"


MAIN_GRID = """
import finished
IMAGE_SIZE = 32
DATASETS = ("{name}",)
SEEDS = {seeds}

def entries(datasets, seeds, preset):
    return finished.main_entries(datasets, seeds, preset)
"""


def main_entries(datasets: Sequence[DatasetInfo], seeds: Sequence[int], preset: paper.Preset) -> list[TableEntry]:
    """The main experiment and the controls on tiny backbones, at the paper's label fractions."""
    cnn, vit = tiny.BACKBONES
    stand_ins = {paper.RESNET50: cnn, paper.VIT_B16: vit}
    scale = Scale(image_size=tiny.SIZE, stand_ins=stand_ins, weights="random", epochs=3, controls=True)
    wanted = [dataclasses.replace(dataset, label_fractions=(0.01, 0.1, 1.0)) for dataset in datasets]
    return experiments.entries_of("main", scale=scale)(wanted, seeds, preset)


def make_main_grid(
    folder: Path,
    shards: Shards,
    *,
    wrong: Callable[[FinetuneSpec], Collection[int] | None],
    seeds: int = 5,
    collapsed: Sequence[str] = (),
    seconds: Callable[[PretrainSpec], float] = lambda spec: 1.0,
) -> Path:
    """A grid file of `main_entries` with all its runs finished: `wrong`, `collapsed` and `seconds` as for `finish`."""
    site = tiny.make_cluster(folder, shards=str(shards.folder.parent))
    info = DatasetInfo(tiny.ref(shards), (1.0,), "balanced_accuracy")
    done = set()
    for entry in main_entries([info], paper.SEEDS[:seeds], paper.preset("paper")):
        parent = entry.spec.pretrain
        if parent is not None and run_id(parent) not in done:
            done.add(run_id(parent))
            finish(parent, site, shards, collapsed=collapsed, seconds=seconds(parent))
        finish(entry.spec, site, shards, wrong=wrong(entry.spec))
    (folder / "mine.py").write_text(MAIN_GRID.format(name=shards.name, seeds=seeds))
    (folder / "here.toml").write_text(f'executor = "local"\nshards = "{shards.folder.parent}"\ndevice = "cpu"\n')
    return folder / "mine.py"
