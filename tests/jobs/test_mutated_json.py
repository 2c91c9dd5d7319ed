"""Damaged JSON of runs, jobs, shards and exports is read as it is or refused with the file's name; no traceback."""

from __future__ import annotations

import dataclasses
import json
import random
from collections.abc import Callable
from pathlib import Path

import finished
import mutations
import pytest
import tiny

from pipeline.cli import status_text
from pipeline.cli.progress import _position
from pipeline.core import files
from pipeline.data.shards.index import open_shards
from pipeline.jobs import datasets, submissions
from pipeline.jobs.execute import site_of
from pipeline.models.info import ModelInfo
from pipeline.runs.folder import Run
from pipeline.runs.result import Start


class shards:
    name, fingerprint = "tiny", "0" * 16


NAMES = ["run's job", "progress", "spec", "result", "start", "milestones"]
NAMES += ["submission", "array's job", "fan-out", "skipped", "manifest", "export"]
PROGRESS = {"epoch": 1, "epochs": 2, "step": 3, "steps": 4, "images_per_second": 2.0, "eta_seconds": 3.0, "time": 1.0}
START = Start(
    hardware={"device": "cpu", "model": "x", "precision": "float32", "threads": 1},
    inputs={"index of tiny": "0" * 64},
    starts=({"code": "abc", "versions": {"torch": "2"}},),
    milestones=(1, 2),
)
MANIFEST = {
    "name": "tiny",
    "fingerprint": "0" * 16,
    "task": "multi-class",
    "classes": ["a", "b"],
    "metric": "f1_micro",
    "label_fractions": [0.1, 1.0],
    "settings": {"size": 32},
    "counts": {s: {"images": 3, "unlabelled": 1, "classes": {"a": 1, "b": 1}} for s in ("train", "val", "test")},
}
EXPORT = ModelInfo(
    run="tiny-cass-s77-0",
    network="model",
    backbone="test_vit.r160_in1k",
    task="multi-class",
    classes=("a", "b"),
    image_size=32,
    mean=(0.5, 0.5, 0.5),
    std=(0.5, 0.5, 0.5),
    weights_sha256="0" * 64,
    spec={"kind": "finetune"},
)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    out = tiny.announce(tiny.make_pretrain(shards), tiny.make_cluster(tmp_path))
    files.write_json(out["progress"], PROGRESS)
    files.write_json(out["milestones"], [1, 2])
    files.write_json(out["result"], dataclasses.asdict(finished.result(out.spec, {"f1_micro": 0.5})))
    out["lock"].touch()
    return out


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder of a submission of two fan-outs."""
    out = tmp_path / "runs" / submissions.FOLDER / "id"
    tasks = [["a-1", "a-2"], ["b-1"]]
    submissions.write_submission(submissions.Submission(out, "main.isic", tuple(map(tuple, tasks)), True, "abc", False))
    files.write_json(out / "job.json", {"id": "17", "released": True})
    files.write_json(out / "0" / "runs.json", tasks[0])
    files.write_json(out / "0" / "skipped.json", {"a-1": "failed"})
    return out


@pytest.fixture
def readers(run: Run, folder: Path, tmp_path: Path) -> dict[str, tuple[Path, Callable[[], object]]]:
    """Each file, and what reads it."""

    def submission() -> submissions.Submission:
        return submissions.read_submission(folder)

    started = Run(tmp_path / "started")
    files.write_json(started["start"], START.to_json())
    manifest = tmp_path / "shards" / "manifest.json"
    files.write_json(manifest, MANIFEST)
    export = tmp_path / "export" / "run.json"
    files.write_json(export, dataclasses.asdict(EXPORT))
    return {
        "run's job": (run["job"], lambda: site_of(run)),
        "progress": (run["progress"], lambda: (status_text._of_running(run, None), _position(run))),
        "submission": (folder / submissions.FILE, lambda: (submission().runs, list(submission().live_tasks()))),
        "array's job": (folder / "job.json", lambda: (list(submission().live_tasks()), submission().job["released"])),
        "fan-out": (folder / "0" / "runs.json", lambda: submissions.runs_of(folder / "0")),
        "skipped": (folder / "0" / "skipped.json", lambda: list(submission().live_tasks())),
        "spec": (run["spec"], lambda: run.spec),
        "result": (run["result"], lambda: (run.result().collapsed, run.result().codes)),
        "start": (started["start"], lambda: (started.start(), started.milestones())),
        "milestones": (run["milestones"], lambda: tuple(run.milestones())),
        "manifest": (manifest, lambda: datasets.info_of(open_shards(manifest.parent))),
        "export": (export, lambda: ModelInfo.of_export(export.parent)),
    }


@pytest.mark.parametrize("name", NAMES)
def test_damaged_json_is_read_or_named(name: str, readers: dict[str, tuple[Path, Callable[[], object]]]) -> None:
    path, read = readers[name]
    value, rng = json.loads(path.read_bytes()), random.Random(mutations.SEED)
    assert read() is not None
    outcomes = []
    for _ in range(mutations.count(300)):
        path.write_bytes(mutations.damaged_json(value, rng))
        outcomes.append(mutations.read_or_refused(read, str(path)) is not None)
    assert any(outcomes) and (name == "progress" or not all(outcomes))
