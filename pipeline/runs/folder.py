"""A run's folder: the only module that knows its file names, and what those files say of its state."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from pipeline.core import files, seals
from pipeline.core.console import visible
from pipeline.core.seals import Damaged
from pipeline.runs.identity import from_json, run_id, to_json
from pipeline.runs.result import Result, Start, parse_result
from pipeline.runs.spec import PretrainSpec, Spec

State = Literal["done", "damaged", "running", "interrupted", "failed", "pending", "missing"]
"""What a run's folder says of it; `pending`: its spec is there and it has not started; `damaged`: it is finished, and a
file that it left is not what it wrote."""


class Run:
    """A run's folder, by path. Reading its state never imports torch and never asks a scheduler."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._checked: tuple[tuple[int, int], dict[str, Any] | ValueError] | None = None

    @property
    def id(self) -> str:
        return self.folder.name

    def __getitem__(self, name: str) -> Path:
        """The path of one of the run's files."""
        return self.folder / FILES[name]

    @property
    def spec(self) -> Spec:
        """Raises `ValueError` where spec.json is not that of the run which the folder is named after."""
        with files.reading(self["spec"], "delete it and launch its grid again"):
            spec = from_json(files.read_json(self["spec"], dict))
            identity = run_id(spec)
        if identity != self.id:
            raise Damaged(
                f"{self['spec']} is that of {visible(identity)}; name the folder so, or delete it and launch again"
            )
        return spec

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
        with files.reading(self["start"], "restart the run: python -m pipeline.clean --restart"):
            start = Start.from_json(files.read_json(self["start"], dict))
        return None if start.published_by else start

    @property
    def began(self) -> bool:
        """Whether it has started by itself."""
        return self.start() is not None

    def milestones(self) -> list[int]:
        """The epochs of the shorter runs that this one publishes on its way; a request until its first start."""
        if (start := self.start()) is not None:
            return list(start.milestones)
        return list(files.read_json(self["milestones"], list)) if self["milestones"].exists() else []

    def state(self) -> State:
        """A file written last proves `done`; a lock held by a living process, and the other files, give the rest.

        The files that the result names are compared by their size: see `check`.
        """
        damaged = bool(self.damage())
        if not damaged and self["result"].exists():
            return "done"
        if not self.folder.exists():
            return "missing"
        if files.is_locked(self["lock"]):
            return "running"
        if damaged:
            return "damaged"
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
        """What the finished run says of itself; raises `ValueError` where result.json is not what was written."""
        return parse_result(self["result"])[0]

    def _seals(self) -> dict[str, Any]:
        """What the result says of its files; parsed again only where it changed. Raises as `result`."""
        stat = self["result"].stat()
        version = stat.st_mtime_ns, stat.st_size
        if self._checked is None or self._checked[0] != version:
            try:
                found: dict[str, Any] | ValueError = seals.seals_of(parse_result(self["result"])[1])
            except ValueError as error:
                found = error
            self._checked = version, found
        if isinstance(self._checked[1], ValueError):
            raise self._checked[1]
        return self._checked[1]

    @property
    def sealed(self) -> bool:
        """Whether the result has checksums: those of earlier code have none."""
        return bool(self._seals())

    @property
    def weights_checksum(self) -> str:
        """The SHA-256 of the weights that the result names; empty where it names none."""
        return str(self._seals().get(seals.FILES, {}).get(FILES["weights"], {}).get("sha256", ""))

    def damage(self) -> str:
        """What is wrong with what a run left, without reading its large files; empty where nothing is."""
        try:
            if self["damaged"].exists():
                return self["damaged"].read_text(encoding="utf-8", errors="replace").strip() or "marked as damaged"
            seals.check_sizes(self.folder, self._seals())
        except FileNotFoundError:  # not finished
            return self._start_damage()
        except ValueError as error:
            return str(error)
        return ""

    def _start_damage(self) -> str:
        """What is wrong with start.json; empty where nothing is."""
        try:
            self.start()
        except ValueError as error:
            return str(error)
        return ""

    def check(self, name: str, reader: str) -> str:
        """The SHA-256 of one of the files that the result names, for whoever is about to use it (`reader`).

        Raises `Damaged` and marks the run where it is not what the run wrote.
        """
        try:
            return seals.checked_sha256(self[name], self._seals())
        except Damaged as error:
            self.mark_damaged(str(error), reader)
            raise

    def mark_damaged(self, problem: str, reader: str) -> None:
        """Note what is wrong, once; where the folder cannot be written the next reader finds it again."""
        if not self["damaged"].exists():
            when = time.strftime("%Y-%m-%d %H:%M:%S")
            with contextlib.suppress(OSError):
                files.write_text(self["damaged"], f"{problem} (found by {reader}, {when})\n")

    def discard(self) -> None:
        """Delete what a damaged run left, so that it is trained again; call it only while holding the run's lock.

        The mark goes last: a run that is half discarded is still damaged. Its start stays if it can be read.
        """
        for path in self.evaluations():
            self.evaluation_scores(path).unlink(missing_ok=True)
            path.unlink()
        start = ("start",) if self._start_damage() else ()
        for name in ("result", *SEALED, *start, "damaged"):
            self[name].unlink(missing_ok=True)

    def evaluation(self, dataset: str, fingerprint: str) -> Path:
        """What an evaluation on another dataset says (runs/evaluation), whether it is there or not."""
        return self.folder / f"evaluation-{dataset}-{fingerprint[:16]}.json"

    def evaluation_scores(self, path: Path) -> Path:
        """The predictions of an evaluation, next to what it says."""
        return path.with_suffix(".parquet")

    def evaluations(self) -> list[Path]:
        """What the evaluations on other datasets say, sorted."""
        return sorted(self.folder.glob("evaluation-*.json"))

    def finish(self, result: Result) -> None:
        """Publish the result with the checksums of the files that it names, which must be on disk by now."""
        self["damaged"].unlink(missing_ok=True)  # noted by a reader of an earlier result
        value = seals.sealed(dataclasses.asdict(result), [self[name] for name in SEALED if self[name].exists()])
        files.write_json(self["result"], value)
        self["error"].unlink(missing_ok=True)
        self["progress"].unlink(missing_ok=True)

    def temporaries(self) -> list[Path]:
        """What a killed process left half written, without the spec's and the job's: a launch may be writing them."""
        names = "checkpoint weights predictions evaluation metrics result start damaged error progress".split()
        return [path for name in names for path in self.folder.glob(f".{name}*.tmp")]

    def remove_temporaries(self) -> None:
        """Delete what a killed process left half written; call it only while holding the run's lock."""
        for path in self.temporaries():
            path.unlink(missing_ok=True)

    def checkpoints(self) -> list[Path]:
        """The run's checkpoint files, newest first."""
        return sorted(self.folder.glob("checkpoint-*.pt"), reverse=True)

    def reached(self) -> int:
        """The step of the newest checkpoint; 0 before the first one, and above every step once the run is done."""
        if self["result"].exists():
            return sys.maxsize
        return max((int(path.name.split("-")[1]) for path in self.checkpoints()), default=0)

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
        """What is damaged, or the last line of a failed run's error; empty where there is none."""
        if damage := self.damage():
            return damage
        if not self["error"].exists():
            return ""
        lines = self["error"].read_text(encoding="utf-8", errors="replace").strip().splitlines()
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
    "val_predictions": "predictions-val.parquet",
    "result": "result.json",
    "damaged": "damaged.txt",
    "error": "error.txt",
    "waits": "waits.txt",  # what its job was requeued to wait for
    "log": "log.txt",
}
SEALED = ("weights", "last_weights", "predictions", "val_predictions")  # whose checksums the result holds


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


def unsealed_text(count: int) -> str:
    return f"{count} finished runs are of earlier code and have no checksums, so damage to their files is not seen"
