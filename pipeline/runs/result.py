"""How a run started and what it found: the values in start.json and result.json."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.core import files, seals
from pipeline.runs.values import flat

DEVICES = "devices"
PUBLISHED_BY, RESUMED_FROM = "carried_by", "goes_on_from"  # keys of start.json and result.json, as they always were


@dataclass(frozen=True, kw_only=True)
class Start:
    """What a run's bits depend on in addition to its spec, fixed at its first start (start.json)."""

    hardware: dict[str, Any]
    """The fields of learn.hardware.Hardware."""
    inputs: dict[str, str]
    """The SHA-256 of every file that the run reads, by what the file is."""
    weights: dict[str, dict[str, Any]] = field(default_factory=dict)
    """The fields of StartWeights of the given weights that it starts from, by name."""
    starts: tuple[dict[str, Any], ...] = ()
    """`code` and `versions` (of libraries) of every process that worked on it, the last one last."""
    milestones: tuple[int, ...] = ()
    """The epochs of the shorter runs that it publishes on its way."""
    resumed_from: str | None = None
    """The id of the shorter run whose kept state it continued from."""
    published_by: str | None = None
    """The id of the longer run that published this one, which then never started by itself."""
    card: str = ""
    """How Slurm names the GPU that it began on (jobs/gpus); empty where it does not."""
    devices: tuple[dict[str, Any], ...] = ()
    """Of a run that changed its device model on its way: `device` and the `step` from which it had it."""

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Start:
        return cls(
            hardware=value.get("hardware", {}),
            inputs=value.get("inputs", {}),
            weights=value.get("weights", {}),
            starts=tuple(value.get("starts", ())),
            milestones=tuple(value.get("milestones", ())),
            resumed_from=value.get(RESUMED_FROM),
            published_by=value.get(PUBLISHED_BY),
            card=value.get("card", ""),
            devices=tuple(value.get(DEVICES, ())),
        )

    def to_json(self) -> dict[str, Any]:
        out: dict[str, Any] = {"hardware": self.hardware, "inputs": self.inputs, "starts": list(self.starts)}
        out |= {"weights": self.weights} if self.weights else {}
        out |= {"milestones": list(self.milestones)} if self.milestones else {}
        out |= {RESUMED_FROM: self.resumed_from} if self.resumed_from else {}
        out |= {"card": self.card} if self.card else {}
        out |= {DEVICES: list(self.devices)} if self.devices else {}
        return out | ({PUBLISHED_BY: self.published_by} if self.published_by else {})

    def notes(self) -> dict[str, Any]:
        """What a result repeats of it."""
        return {
            name: value for name, value in self.to_json().items() if name in ("inputs", "starts", RESUMED_FROM, DEVICES)
        }


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

    def flat(self) -> dict[str, Any]:
        """What it says with dotted names: the metrics by their own, and the rest but for versions and inputs."""
        names = ("seconds", "images_per_second", "epochs", "best_epoch", "device", "precision", "threads", "code")
        rest = {name: getattr(self, name) for name in (*names, "gpu_memory", "temperature", "published_by")}
        return flat({**self.metrics, **rest})

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
    def probes(self) -> dict[str, Any]:
        """What probes found of a pretraining run (learn/probes): `start` and `end` by name, and what judged it; empty
        where nothing did."""
        return dict(self.metrics.get("probes") or {})

    @property
    def temperature(self) -> float | None:
        """The divisor of a fine-tune's logits that validation gave (learn/calibration); None where nothing did."""
        found = self.notes.get("calibration")
        return None if found is None else float(found["temperature"])

    @property
    def temperature_images(self) -> int | None:
        """How many validation images gave it."""
        found = self.notes.get("calibration")
        return None if found is None else int(found["images"])

    @property
    def gpu_memory(self) -> dict[str, int]:
        """Bytes of the GPU at the peak of the run's last start: `allocated`, `reserved`; empty on a CPU and of results
        of earlier code."""
        return dict(self.notes.get("gpu_memory") or {})

    @property
    def devices(self) -> list[dict[str, Any]]:
        """Of a run that changed its device model on its way: `device` and the `step` from which it had it."""
        return list(self.notes.get(DEVICES) or ())

    @property
    def published_by(self) -> str | None:
        """The id of the longer run that published this one on its way."""
        return self.notes.get(PUBLISHED_BY)

    @property
    def codes(self) -> list[str]:
        """The version of the code of every start."""
        return [start["code"] for start in self.notes.get("starts", ())]


def parse_result(path: Path) -> tuple[Result, dict[str, Any]]:
    """The result and the sealed object in the file; `ValueError` where it is not what was written."""
    move = "launch --retry makes it again"
    value = seals.read_sealed(path)
    known = {item.name for item in dataclasses.fields(Result)}
    with files.reading(path, move):
        result = Result(**{name: item for name, item in value.items() if name in known})
        if not (isinstance(result.metrics, dict) and isinstance(result.notes, dict)):
            raise TypeError("metrics and notes are objects")
        ", ".join(
            [*result.collapsed, *result.codes, str(result.published_by)]
        )  # those of the right shape can be joined
        float(result.seconds), float(result.images_per_second), result.temperature
    return result, value
