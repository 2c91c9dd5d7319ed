"""A run's folder: the only module that knows its file names, and what those files say of its state."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pipeline.core import files
from pipeline.runs.identity import from_json, run_id, to_json
from pipeline.runs.spec import PretrainSpec, Spec

State = Literal["done", "running", "interrupted", "failed", "pending", "missing"]
"""What a run's folder says of it; `pending`: its spec is there and it has not started."""

PUBLISHED_BY, RESUMED_FROM = "carried_by", "goes_on_from"  # keys of start.json and result.json, as they always were


@dataclass(frozen=True, kw_only=True)
class Start:
    """What a run's bits depend on in addition to its spec, fixed at its first start (start.json)."""

    hardware: dict[str, Any]
    """The fields of learn.hardware.Hardware."""
    inputs: dict[str, str]
    """The SHA-256 of every file that the run reads, by what the file is."""
    starts: tuple[dict[str, Any], ...] = ()
    """`code` and `versions` (of libraries) of every process that worked on it, the last one last."""
    milestones: tuple[int, ...] = ()
    """The epochs of the shorter runs that it publishes on its way."""
    resumed_from: str | None = None
    """The id of the shorter run whose kept state it continued from."""
    published_by: str | None = None
    """The id of the longer run that published this one, which then never started by itself."""

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Start:
        return cls(
            hardware=value.get("hardware", {}),
            inputs=value.get("inputs", {}),
            starts=tuple(value.get("starts", ())),
            milestones=tuple(value.get("milestones", ())),
            resumed_from=value.get(RESUMED_FROM),
            published_by=value.get(PUBLISHED_BY),
        )

    def to_json(self) -> dict[str, Any]:
        out: dict[str, Any] = {"hardware": self.hardware, "inputs": self.inputs, "starts": list(self.starts)}
        out |= {"milestones": list(self.milestones)} if self.milestones else {}
        out |= {RESUMED_FROM: self.resumed_from} if self.resumed_from else {}
        return out | ({PUBLISHED_BY: self.published_by} if self.published_by else {})

    def notes(self) -> dict[str, Any]:
        """What a result repeats of it."""
        return {name: value for name, value in self.to_json().items() if name in ("inputs", "starts", RESUMED_FROM)}


@dataclass(frozen=True, kw_only=True)
class Result:
    """What a finished run says of itself; written last, so its presence proves that the run is complete."""

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

    @property
    def task(self) -> str:
        """`multi-class` or `multi-label`, of a fine-tuning run: only where every image has exactly one class is the
        score of always naming the commonest class stored (learn.metrics)."""
        return "multi-class" if self.metrics.get("majority") else "multi-label"

    @property
    def collapsed(self) -> list[str]:
        """The arms of a pretraining run that collapsed."""
        return list(self.notes.get("collapsed") or ())

    @property
    def published_by(self) -> str | None:
        """The id of the longer run that published this one on its way."""
        return self.notes.get(PUBLISHED_BY)

    @property
    def codes(self) -> list[str]:
        """The version of the code of every start."""
        return [start["code"] for start in self.notes.get("starts", ())]


class Run:
    """A run's folder, by path. Reading its state never imports torch and never asks a scheduler."""

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
        """Make the folder of a planned run; calling it again changes nothing."""
        assert run_id(spec) == self.id
        if not self["spec"].exists():
            files.write_json(self["spec"], to_json(spec))

    def start(self) -> Start | None:
        """How it started; None before its first start.

        What a longer run noted here that was killed before it wrote the result is no start of this run.
        """
        if not self["start"].exists():
            return None
        start = Start.from_json(files.read_json(self["start"]))
        return None if start.published_by else start

    @property
    def began(self) -> bool:
        """Whether it has started by itself."""
        return self.start() is not None

    def milestones(self) -> list[int]:
        """The epochs of the shorter runs that this one publishes on its way; a request until its first start."""
        if (start := self.start()) is not None:
            return list(start.milestones)
        return list(files.read_json(self["milestones"])) if self["milestones"].exists() else []

    def state(self) -> State:
        """A file written last proves `done`; a lock held by a living process, and the other files, give the rest."""
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
        """The lock that a process holds while it works on the run; it waits, since reading the state takes it too."""
        return files.lock(self["lock"], patience=patience, what=f"run {self.id}", stop=stop)

    def silence(self) -> float:
        """Seconds since the last heartbeat of the process that works on the run."""
        return time.time() - self["lock"].stat().st_mtime

    def result(self) -> Result:
        value = files.read_json(self["result"])
        known = {item.name for item in dataclasses.fields(Result)}
        return Result(**{name: item for name, item in value.items() if name in known})

    def finish(self, result: Result) -> None:
        """Publish the result; everything that it names must be on disk by now."""
        files.write_json(self["result"], dataclasses.asdict(result))
        self["error"].unlink(missing_ok=True)
        self["progress"].unlink(missing_ok=True)

    def temporaries(self) -> list[Path]:
        """What a killed process left half written, without the spec's and the job's: a launch may be writing them."""
        names = ("checkpoint", "weights", "predictions", "metrics", "result", "start", "error", "progress")
        return [path for name in names for path in self.folder.glob(f".{name}*.tmp")]

    def remove_temporaries(self) -> None:
        """Delete what a killed process left half written; call it only while holding the run's lock."""
        for path in self.temporaries():
            path.unlink(missing_ok=True)

    def checkpoints(self) -> list[Path]:
        """The run's checkpoint files, newest first."""
        return sorted(self.folder.glob("checkpoint-*.pt"), reverse=True)

    def spare_checkpoints(self, *, keep_state: bool) -> list[Path]:
        """The checkpoints that a finished run does not need: all but the newest where `keep_state` keeps its state."""
        found = self.checkpoints()
        return found[1:] if found and keep_state and isinstance(self.spec, PretrainSpec) else found

    def progress(self) -> dict[str, Any]:
        """How far a running run is: epoch, epochs, step, steps, images_per_second, eta_seconds, age (s).

        Empty where nothing says it, or something else than numbers does: it only informs.
        """
        try:
            value: dict[str, Any] = files.read_json(self["progress"], dict)
            left = value["eta_seconds"]
            numbers = [value[name] for name in ("epoch", "epochs", "step", "steps", "images_per_second", "time")]
            if not all(map(math.isfinite, [*numbers, 0 if left is None else left])):
                return {}
        except (OSError, ValueError, KeyError, TypeError, OverflowError):
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
    "milestones": "milestones.json",  # requested epochs of the shorter runs that this one publishes on its way
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
