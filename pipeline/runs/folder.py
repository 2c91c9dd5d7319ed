"""A run's folder: the only place that knows its file names, and what those files say of its state."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.core import files
from pipeline.runs.spec import PretrainSpec, Spec, from_json, run_id, to_json

STATES = ("done", "running", "interrupted", "failed", "pending", "missing")


@dataclass(frozen=True, kw_only=True)
class Result:
    """What a finished run says of itself; written last, so its presence is the proof of completion."""

    metrics: dict[str, Any]
    seconds: float
    """Time spent in training steps and validation, over all starts of the run."""
    images_per_second: float
    epochs: int
    best_epoch: int | None
    device: str
    precision: str
    threads: int
    code: str
    versions: dict[str, str]
    notes: dict[str, Any] = field(default_factory=dict)


class Run:
    """A run folder, by path. Reading its state never imports torch and never asks a scheduler."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def id(self) -> str:
        return self.folder.name

    def __getitem__(self, name: str) -> Path:
        """The path of one of the run's files."""
        return self.folder / FILES[name]

    @property
    def spec(self) -> Spec:
        return from_json(files.read_json(self["spec"]))

    def announce(self, spec: Spec) -> None:
        """Make the folder of a wanted run; doing it again changes nothing."""
        assert run_id(spec) == self.id
        if not self["spec"].exists():
            files.write_json(self["spec"], to_json(spec))

    @property
    def began(self) -> bool:
        """Whether it began by itself; a start that a longer run noted, and was killed before the result, is none."""
        return self["start"].exists() and "carried_by" not in files.read_json(self["start"])

    def milestones(self) -> list[int]:
        """The epochs of the shorter runs this one publishes on its way: a wish until its first start fixes them."""
        if self.began:
            return list(files.read_json(self["start"]).get("milestones", []))
        return list(files.read_json(self["milestones"])) if self["milestones"].exists() else []

    def state(self) -> str:
        """One of `STATES`; a file written last is the proof, a lock held by a living process the rest."""
        if self["result"].exists():
            return "done"
        if not self.folder.exists():
            return "missing"
        if files.is_locked(self["lock"]):
            return "running"
        if self["error"].exists():
            return "failed"
        return "interrupted" if self.began else "pending"

    def lock(self, *, patience: float = 5.0, stop: Callable[[], bool] | None = None) -> Any:
        """The lock a task holds while it works on the run; patient, since a look at the state takes it briefly."""
        return files.lock(self["lock"], patience=patience, what=f"run {self.id}", stop=stop)

    def silence(self) -> float:
        """Seconds since the last sign of life of the process that works on the run."""
        return time.time() - self["lock"].stat().st_mtime

    def result(self) -> Result:
        value = files.read_json(self["result"])
        known = {item.name for item in dataclasses.fields(Result)}
        return Result(**{name: item for name, item in value.items() if name in known})

    def finish(self, result: Result) -> None:
        """Publish the result; everything it speaks of must be on disk by now."""
        files.write_json(self["result"], dataclasses.asdict(result))
        self["error"].unlink(missing_ok=True)
        self["progress"].unlink(missing_ok=True)

    def temporaries(self) -> list[Path]:
        """What a killed task left half written; the spec's and the job's are left out, a launch may be writing them."""
        names = ("checkpoint", "weights", "predictions", "metrics", "result", "start", "error", "progress")
        return [path for name in names for path in self.folder.glob(f".{name}*.tmp")]

    def remove_temporaries(self) -> None:
        """Delete what a killed task left half written; call it only while holding the run's lock."""
        for path in self.temporaries():
            path.unlink(missing_ok=True)

    def checkpoints(self) -> list[Path]:
        """The run's checkpoint files, newest first."""
        return sorted(self.folder.glob("checkpoint-*.pt"), reverse=True)

    def spare_checkpoints(self, *, keep_state: bool) -> list[Path]:
        """Those a finished run needs no more: all but the newest of a pretraining run whose state is kept, else all."""
        found = self.checkpoints()
        return found[1:] if found and keep_state and isinstance(self.spec, PretrainSpec) else found

    def progress(self) -> dict[str, Any]:
        """Where a working run stands: epoch, epochs, step, steps, images_per_second, eta_seconds, age (s)."""
        try:
            value: dict[str, Any] = files.read_json(self["progress"])
        except (OSError, ValueError):
            return {}
        return {**value, "age": time.time() - value["time"]}

    def reason(self) -> str:
        """The last line of a failed run's error, empty where there is none."""
        if not self["error"].exists():
            return ""
        lines = self["error"].read_text(encoding="utf-8").strip().splitlines()
        return lines[-1] if lines else "unknown error"


FILES = {
    "spec": "spec.json",
    "job": "job.json",  # where the run was sent: the cluster's facts
    "milestones": "milestones.json",  # the epochs of the shorter runs that this one is to publish on its way
    "start": "start.json",  # hardware, inputs, milestones, fixed at the first start; code and versions of every start
    "lock": "lock",
    "progress": "progress.json",
    "metrics": "metrics.jsonl",
    "tensorboard": "tensorboard",
    "weights": "weights.safetensors",
    "last_weights": "weights-last.safetensors",
    "predictions": "predictions.parquet",
    "result": "result.json",
    "error": "error.txt",
    "log": "log.txt",
}


def find_run(runs: Path, text: str) -> Run:
    """The one run that `text` names: the path of its folder, its id, or any part of its id that no other has."""
    if "/" in text and (Path(text) / FILES["spec"]).exists():
        return Run(Path(text).resolve())
    found = sorted(path.parent.name for path in runs.glob(f"*/{FILES['spec']}") if text in path.parent.name)
    if text in found:
        return Run(runs / text)
    if len(found) == 1:
        return Run(runs / found[0])
    if not found:
        raise ValueError(f"there is no run {text!r} in {runs}; python -m pipeline.status lists them")
    raise ValueError(f"{text!r} could be any of {len(found)} runs: {', '.join(found[:5])}; give more of the id")
