"""Rows of the paper's Table 5 (brain MRI): CASS, CASS with a guard, DINO and supervised, one seed, at 384 pixels.

First without leaks between the splits, then as the curator split the images. Pretraining stops where the time ends and
continues in the next call, exactly.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.benchmarks.gpu.programme import Found, Programme, Sheet, Unfinished
from pipeline.benchmarks.gpu.variations import LOADED
from pipeline.benchmarks.support.raw_images import make_shards
from pipeline.core import files
from pipeline.core.console import counted
from pipeline.jobs import execute
from pipeline.jobs.output import output_to
from pipeline.jobs.signals import STOPPED, Stop
from pipeline.learn.weights import weights_file
from pipeline.runs import cluster as clusters
from pipeline.runs.folder import Run
from pipeline.runs.identity import run_id
from pipeline.runs.methods import method_info
from pipeline.runs.spec import DatasetRef, FinetuneSpec, PretrainSpec, Spec
from pipeline.study import paper, recipes

TITLE = "Table 5: brain MRI without leaks, and as its curator split it"
MINUTES = 0.0  # `Programme.minutes` says it
NAME = "brain_mri"
SEED = paper.SEEDS[0]
SPLITS = {"grouped": "without leaks", "image": "as the curator split them"}
FRACTIONS = {0.1: "10%", 0.01: "1%", 1.0: "100%"}  # in the order of what they are worth for their time
TECHNIQUES = ("cass", "cass_vc", "dino", "supervised")
PLAN = "plan"
PRETRAINING_SHARE = 0.6  # of the time, of which the epochs are chosen
STANDIN_SCALE = 0.2
EPOCH_COSTS = 2 * (2 + 8 / 3)  # of CASS's epochs: both splits; CASS, CASS with a guard, DINO (methods.MethodInfo.flops)


@dataclass(frozen=True)
class Wanted:
    """One run: a pretraining run (`role` is empty, or DINO's network), or a fine-tune."""

    split: str
    technique: str
    role: str = ""
    fraction: float = 0.0

    @property
    def part(self) -> str:
        return " ".join(filter(None, (self.split, self.technique, self.role, FRACTIONS.get(self.fraction, ""))))


def parts(programme: Programme) -> list[str]:
    shards = [f"shards {split}" for split in SPLITS]
    return [PLAN, *(part for split, made in zip(SPLITS, shards, strict=True) for part in (made, *_runs_of(split)))]


def _runs_of(split: str) -> list[str]:
    return [wanted.part for wanted in all_runs() if wanted.split == split]


def all_runs() -> list[Wanted]:
    """Every run, in the order in which they are made: each after what it starts from."""
    out = []
    for split in SPLITS:
        for technique in TECHNIQUES[:-1]:
            roles = (paper.CNN, paper.TRANSFORMER) if technique == "dino" else ("",)
            out += [Wanted(split, technique, role) for role in roles]
        for fraction in FRACTIONS:
            for technique in TECHNIQUES:
                out += [Wanted(split, technique, role, fraction) for role in (paper.CNN, paper.TRANSFORMER)]
    return out


def run(programme: Programme, part: str) -> Found:
    if part == PLAN:
        return plan(programme)
    if part.startswith("shards "):
        return make(programme, part.removeprefix("shards "))
    wanted = next(wanted for wanted in all_runs() if wanted.part == part)
    if programme.quick and wanted.fraction not in (0.0, 0.1):
        return {"skipped": "not in the rehearsal"}
    return execute_one(programme, spec_of(programme, wanted))


# --- What is trained ---------------------------------------------------------------------------------------------


def plan(programme: Programme) -> Found:
    """The epochs of pretraining, chosen once by the measured speed and the time; the start weights that are here."""
    epochs, reason = 1, "a rehearsal"
    if not programme.quick:
        measured = programme.found("speed", LOADED.name) or {}
        seconds = measured.get("seconds", 0.0) / measured.get("batch", 1) * paper.IMAGES[NAME][0]
        epochs, reason = 3, "the speed is not measured yet"
        if seconds:
            affordable = PRETRAINING_SHARE * programme.minutes * 60 / (EPOCH_COSTS * seconds)
            epochs = max(1, min(paper.PRETRAIN_EPOCHS, int(affordable)))
            reason = f"{seconds:.1f} s an epoch of CASS, {programme.minutes:g} minutes"
    weights = "random"
    if not programme.quick:
        try:
            for backbone in paper.STANDARD:
                weights_file(backbone.tag, programme.weights)
            weights = "imagenet"
        except ValueError:
            pass
    return {"epochs": epochs, "reason": reason, "weights": weights}


def make(programme: Programme, split: str) -> Found:
    """Shard the images of 224 pixels at the size that is trained; a drawn stand-in where the data is not here."""
    raw, drawn = (programme.raw or Path()) / NAME, False
    if programme.quick or not programme.raw or not raw.is_dir():
        raw, drawn = programme.settings("table5").scratch / "standin", True
        scale = 0.0001 if programme.quick else STANDIN_SCALE
        if not raw.exists():
            command = [sys.executable, "-m", "pipeline.standin", NAME, "--out", str(raw), "--scale", str(scale)]
            subprocess.run(command, check=True, capture_output=True)
    shards = make_shards(Path(site(programme).shards), NAME, programme.size, "--raw", raw, split=split)
    return {"fingerprint": shards.fingerprint, "drawn": drawn, "images": len(shards.rows["key"])}


def site(programme: Programme) -> clusters.Cluster:
    """This machine, with its files among the programme's own."""
    folder = programme.settings("table5").scratch
    paths: dict[str, object] = {name: str(folder / name) for name in clusters.PATHS}
    paths |= {"weights": str(programme.weights), "device": programme.device, "checkpoint_minutes": 2.0}
    return clusters.from_json(paths)


def spec_of(programme: Programme, wanted: Wanted) -> Spec:
    """The paper's run with the programme's epochs, size and start weights."""
    made, planned = programme.found("table5", f"shards {wanted.split}"), programme.found("table5", PLAN)
    if not made or not planned or "error" in made:
        raise ValueError(f"the shards of {NAME}, split {wanted.split}, are not there")
    dataset = DatasetRef(name=NAME, fingerprint=made["fingerprint"])
    backbones = {b.role: replace(b, weights=planned["weights"]) for b in _backbones(programme)}
    preset = paper.preset("paper")
    if wanted.technique == "supervised":
        pretrain: PretrainSpec | None = None
    else:
        pretrain = _pretraining(programme, wanted, dataset, backbones, planned["epochs"])
    if not wanted.fraction:
        assert pretrain is not None
        return pretrain
    spec: FinetuneSpec = recipes.finetune(
        dataset, backbones[wanted.role], pretrain, preset=preset, seed=SEED, label_fraction=wanted.fraction
    )
    return replace(spec, image_size=programme.size, epochs=1 if programme.quick else spec.epochs)


def _backbones(programme: Programme) -> tuple[paper.Backbone, ...]:
    return programme.pair if programme.quick else paper.STANDARD


def _pretraining(
    programme: Programme, wanted: Wanted, dataset: DatasetRef, backbones: Mapping[str, paper.Backbone], epochs: int
) -> PretrainSpec:
    preset = paper.preset("paper")
    if wanted.technique == "dino":
        spec = recipes.dino(dataset, backbones[wanted.role], preset=preset, seed=SEED, image_size=programme.size)
        if programme.quick:
            spec = recipes.with_options(spec, {"out_dim": 64, "hidden": 32})
    elif wanted.technique == "cass":
        spec = recipes.cass(dataset, tuple(backbones.values()), preset=preset, seed=SEED)
    else:
        spec = recipes.cass_vc(dataset, tuple(backbones.values()), seed=SEED)
    return replace(spec, epochs=epochs, image_size=programme.size)


def execute_one(programme: Programme, spec: Spec) -> Found:
    """Execute the run from wherever it is; raises `Unfinished` when it was asked to stop and has saved."""
    run = Run(Path(site(programme).runs) / run_id(spec))
    run.announce(spec)
    files.write_json(run["job"], clusters.to_json(site(programme)))
    with Stop() as stop, output_to(run["log"]):
        code = execute.execute_run(run, stop)
    if code == STOPPED:
        raise Unfinished
    if code:
        raise RuntimeError(run.reason() or f"see {run['log']}")
    result = run.result()
    kept = {name: value for name, value in result.metrics.items() if name in ("f1_micro", "probes", "loss")}
    rows = files.read_jsonl(run["metrics"])
    found = {"run": run.id, "metrics": kept, "seconds": result.seconds, "epochs": result.epochs}
    found |= {"images_per_second": result.images_per_second, "collapsed": result.collapsed}
    return found | {"probes": [{k: v for k, v in row.items() if "_knn" in k or "_linear" in k} for row in rows]}


# --- What came of it ---------------------------------------------------------------------------------------------


def sheets(programme: Programme, found: Mapping[str, Found]) -> list[Sheet]:
    return [sheet for split in SPLITS for sheet in _of_split(programme, found, split)]


def _of_split(programme: Programme, found: Mapping[str, Found], split: str) -> list[Sheet]:
    made, planned = found.get(f"shards {split}"), found.get(PLAN)
    if made is None or planned is None:
        return []
    title = f"Brain MRI, {SPLITS[split]}"
    data = "DRAWN images, not the dataset" if made["drawn"] else "the dataset at 224 pixels, resized"
    notes = [
        f"{made['images']} images ({data}), {programme.size} pixels, seed {SEED}, from {planned['weights']} weights"
    ]
    notes.append(
        f"pretraining: {counted(planned['epochs'], 'epoch')} ({planned['reason']}); the paper: {paper.PRETRAIN_EPOCHS}"
    )
    scores, pretrained = [], []
    for backbone in _backbones(programme):
        for technique in TECHNIQUES:
            own = [
                found.get(Wanted(split, technique, backbone.role, fraction).part, {}) for fraction in sorted(FRACTIONS)
            ]
            cells = [f"{f['metrics']['f1_micro']:.4f}" if "metrics" in f else "" for f in own]
            if any(cells):
                scores.append((method_info(technique).title, backbone.title, *cells))
    for wanted in all_runs():
        own_run = found.get(wanted.part, {})
        if wanted.split == split and not wanted.fraction and "metrics" in own_run:
            title_of = method_info(wanted.technique).title + (f", {wanted.role}" if wanted.role else "")
            pretrained.append((title_of, own_run["epochs"], f"{own_run['images_per_second']:.0f}", _probes(own_run)))
    heads = (("technique", "network", *(FRACTIONS[fraction] for fraction in sorted(FRACTIONS))), scores)
    out = [Sheet(title=f"{title}: F1 by labels", header=heads[0], rows=scores, notes=notes)]
    header = ("pretraining", "epochs", "images a second", "k-NN on test images, start → end")
    return out + ([Sheet(title=f"{title}: pretraining", header=header, rows=pretrained)] if pretrained else [])


def _probes(found: Found) -> str:
    probes = found["metrics"].get("probes") or {}
    start, end = probes.get("start", {}), probes.get("end", {})
    named = [name for name in end if name.endswith("_test_knn")]
    said = [f"{name.removesuffix('_test_knn')} {start.get(name) or 0:.3f} → {end[name] or 0:.3f}" for name in named]
    return ", ".join(said) + (f"; COLLAPSED: {', '.join(found['collapsed'])}" if found["collapsed"] else "")
