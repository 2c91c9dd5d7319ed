"""What one must know to use a trained network, read from a run's folder or from an export; torch is not imported."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.core import files, seals
from pipeline.core.console import counted
from pipeline.data.shards.index import shards_of
from pipeline.learn import calibration
from pipeline.runs.folder import Run, find_run
from pipeline.runs.identity import from_json, to_json
from pipeline.runs.predictions import read_classes
from pipeline.runs.spec import Arm, FinetuneSpec
from pipeline.runs.start_weights import StartWeights

FILE = "run.json"  # an export's own description; stock timm does not read it
WEIGHTS = "model.safetensors"
READER = "what uses its network"
MOVE = "copy the export again, or export the run again"
FINETUNED = "model"  # the name of a fine-tuning run's network in its weights file


@dataclass(frozen=True, kw_only=True)
class ModelInfo:
    """A trained network: which one it is, what its outputs mean and how its images are prepared."""

    run: str
    network: str
    """`model` of a fine-tuning run, or the arm of a pretraining run."""
    backbone: str
    task: str
    """`multi-class`, `multi-label`, or `features`: a pretrained arm without its head."""
    classes: tuple[str, ...]
    """In the order of the outputs, whose sigmoid is the score; empty for features."""
    image_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    weights_sha256: str
    """Of the run's weights file."""
    spec: dict[str, Any]
    temperature: float | None = None
    """What the outputs are divided by where calibrated scores are asked for; None where it is not known."""
    prepared: dict[str, Any] | None = None
    """How its images were read: of the manifest of its shards the `settings` and `id_key`; None: not known."""

    @classmethod
    def of_run(cls, run: Run, arm: str | None = None) -> ModelInfo:
        """A finished run's network; `arm` names one of a pretraining run's.

        Raises `ValueError` for a run that is not done, for an arm of a fine-tuning run, and for a pretraining run where
        `arm` is None or unknown.
        """
        if (state := run.state()) == "damaged":
            raise ValueError(f"{run.id} is damaged: {run.reason()}; launch its grid with --retry to make it again")
        if state != "done":
            raise ValueError(f"{run.id} is {state}; only a finished run has a network: launch its grid to finish it")
        spec, temperature = run.spec, None
        source: FinetuneSpec | Arm
        if isinstance(spec, FinetuneSpec):
            if spec.probe:
                raise ValueError(f"{run.id} judged frozen features and trained no network; give what it started from")
            if arm is not None:
                raise ValueError(f"{run.id} is a fine-tuning run and has one network; leave --arm {arm} out")
            network, source = FINETUNED, spec
            run.check("predictions", READER)
            classes, task = read_classes(run["predictions"]), run.result().task
            temperature = run.result().temperature
        else:
            if arm is None:
                arms = ", ".join(f"{arm.name} ({arm.backbone})" for arm in spec.arms)
                raise ValueError(f"{run.id} is a pretraining run with the arms {arms}; choose one with --arm")
            network, source = arm, spec.arm(arm)
            classes, task = (), "features"
        mean, std = source.given.normalisation if source.given else (spec.augment.mean, spec.augment.std)
        return cls(
            run=run.id,
            network=network,
            backbone=source.backbone,
            task=task,
            classes=classes,
            image_size=spec.image_size,
            mean=mean,
            std=std,
            weights_sha256=run.check("weights", READER),
            spec=to_json(spec),
            temperature=temperature,
        )

    @classmethod
    def of_export(cls, folder: Path) -> ModelInfo:
        """The network of an export; `ValueError` where this version cannot read the export's description."""
        try:
            value = seals.read_sealed(folder / FILE)
        except seals.Damaged as error:
            raise seals.Damaged(f"{error}; {MOVE}") from None
        names = [field.name for field in dataclasses.fields(cls) if field.name in value]
        required = [field.name for field in dataclasses.fields(cls) if field.default is dataclasses.MISSING]
        if missing := [name for name in required if name not in value]:
            raise ValueError(
                f"{folder / FILE} has no {missing[0]!r}: this program did not write it, or a newer version did"
            )
        with files.reading(folder / FILE, "export the run again"):
            lists = {name: tuple(value[name]) for name in ("classes", "mean", "std")}
            return cls(**{**{name: value[name] for name in names}, **lists})

    @property
    def given(self) -> StartWeights | None:
        """The given weights that its training, or its pretraining, started from."""
        if not self.spec:  # weights that no run made
            return None
        spec = from_json(self.spec)
        return (spec if isinstance(spec, FinetuneSpec) else spec.arm(self.network)).given

    def with_prepared(self, shards: Path) -> ModelInfo:
        """The same with how its images were read, if that is unknown and its shards are in the folder `shards`."""
        if self.prepared is not None or not self.spec:
            return self
        try:
            spec = from_json(self.spec)
            manifest = shards_of(shards, spec.dataset, size=spec.image_size).manifest
        except ValueError:
            return self
        prepared = {"settings": manifest["settings"], "id_key": manifest.get("id_key")}
        return dataclasses.replace(self, prepared=prepared)

    def is_same_network(self, other: ModelInfo) -> bool:
        """Whether both are the same network of the same run, with the same weights."""
        names = ("run", "network", "weights_sha256")
        return all(getattr(self, name) == getattr(other, name) for name in names)


def temperature_text(text: str, info: ModelInfo, runs: Path) -> str:
    """What a person must know of calibrated scores; text: the network's export or run."""
    assert info.temperature is not None
    images = None if is_export(Path(text)) else find_run(runs, text).result().temperature_images
    by = f"fitted on {counted(images, 'validation image')}" if images else "its README.md says on how many images"
    return f"calibrated by the temperature {info.temperature:.4f}, {by}{calibration.undetermined(info.temperature)}"


def is_export(folder: Path) -> bool:
    return (folder / FILE).is_file()
