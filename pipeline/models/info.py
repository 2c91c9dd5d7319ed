"""What one must know of a trained network to use it, read off a run's folder or off an export; no torch here."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.core import files
from pipeline.runs.folder import Run
from pipeline.runs.spec import FinetuneSpec, to_json

FILE = "run.json"  # an export's own description; stock timm does not read it
WEIGHTS = "model.safetensors"
FINETUNED = "model"  # what a fine-tuning run calls its network


@dataclass(frozen=True, kw_only=True)
class About:
    """A trained network: which it is, what its outputs mean and how its images are prepared."""

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

    def is_of(self, other: About) -> bool:
        """Whether both are one network of one run, with the same weights."""
        names = ("run", "network", "weights_sha256")
        return all(getattr(self, name) == getattr(other, name) for name in names)


def of_run(run: Run, arm: str | None = None) -> About:
    """A finished run's network; `arm` names one of a pretraining run's. `ValueError` when there is none such."""
    if run.state() != "done":
        raise ValueError(f"{run.id} is {run.state()}; only a finished run has a network: launch its grid to finish it")
    spec = run.spec
    finetuned = isinstance(spec, FinetuneSpec)
    if isinstance(spec, FinetuneSpec):
        if arm is not None:
            raise ValueError(f"{run.id} is a fine-tuning run and has one network; leave --arm {arm} out")
        backbone, classes = spec.backbone, _classes(run)
        # scores of always naming the commonest class are stored where every image has exactly one
        task = "multi-label" if run.result().metrics["majority"] is None else "multi-class"
    else:
        if arm is None:
            arms = ", ".join(f"{arm.name} ({arm.backbone})" for arm in spec.arms)
            raise ValueError(f"{run.id} is a pretraining run with the arms {arms}; choose one with --arm")
        backbone, classes, task = spec.arm(arm).backbone, (), "features"
    return About(
        run=run.id,
        network=FINETUNED if finetuned else str(arm),
        backbone=backbone,
        task=task,
        classes=classes,
        image_size=spec.image_size,
        mean=spec.augment.mean,
        std=spec.augment.std,
        weights_sha256=files.sha256_file(run["weights"]),
        spec=to_json(spec),
    )


def _classes(run: Run) -> tuple[str, ...]:
    """The classes of a fine-tuning run in the order of its outputs, from the columns of its predictions."""
    import pyarrow.parquet as parquet

    head = "score:"
    return tuple(name[len(head) :] for name in parquet.read_schema(run["predictions"]).names if name.startswith(head))


def is_export(folder: Path) -> bool:
    return (folder / FILE).is_file()


def of_export(folder: Path) -> About:
    """What an export says of itself; `ValueError` where its description is not one of this program's."""
    value = files.read_json(folder / FILE)
    names = [item.name for item in dataclasses.fields(About)]
    if missing := [name for name in names if name not in value]:
        raise ValueError(f"{folder / FILE} has no {missing[0]!r}: it is no export of this program, or of a newer one")
    lists = {name: tuple(value[name]) for name in ("classes", "mean", "std")}
    return About(**{**{name: value[name] for name in names}, **lists})
