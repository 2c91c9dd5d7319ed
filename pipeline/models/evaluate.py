"""A fine-tune on another dataset: our class by theirs, images without twins of training images and without
their patients, and their scores."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.core.console import counted
from pipeline.data.shards import duplicates
from pipeline.data.shards.duplicates import TwinElsewhere
from pipeline.data.shards.index import Shards, shards_of
from pipeline.runs.cluster import Cluster
from pipeline.runs.evaluation import OF_PATIENT, Evaluation, known, write
from pipeline.runs.folder import Run
from pipeline.runs.predictions import Predictions, read_classes
from pipeline.runs.spec import FinetuneSpec

STORED = ("format", "quality", "decode", "bits")  # of shard settings: how an image was stored


# --- Classes ---------------------------------------------------------------------------------------------------------


def class_map(ours: Sequence[str], theirs: Sequence[str], given: Sequence[str]) -> dict[str, str]:
    """Our class by theirs: by the same name, and as `their class=our class` in `given`; an empty one leaves theirs out.

    Raises `ValueError` for a name that neither has, and where no class is left.
    """
    out = {name: name for name in theirs if name in ours}
    for text in given:
        parts = [(text[:i], text[i + 1 :]) for i, sign in enumerate(text) if sign == "="]  # a name may hold one too
        found = [(their, our) for their, our in parts if their in theirs and (our in ours or not our)]
        if len(found) != 1:
            raise ValueError(
                f"--map {text!r} is not THEIR=OUR; their classes: {', '.join(theirs)}; ours: {', '.join(ours)}"
            )
        their, our = found[0]
        out.pop(their, None)
        out |= {their: our} if our else {}
    if not out:
        raise ValueError(
            f"no class has the same name: theirs are {', '.join(theirs)}, ours {', '.join(ours)}; give --map THEIR=OUR"
        )
    return dict(sorted(out.items()))


@dataclass(frozen=True)
class Selection:
    """The images of other shards that can be scored by a network's classes."""

    rows: np.ndarray
    """int64 [n]."""
    targets: np.ndarray
    """0 and 1 by image and class of ours: int8 [n, classes]."""
    left_out: dict[str, int]


def select(
    shards: Shards, mapping: Mapping[str, str], classes: Sequence[str], task: str, seen: Collection[str]
) -> Selection:
    """The labelled images whose classes we have, without those whose keys are in `seen`, since they have a twin among
    what the run has seen, and without the other images of their patients and lesions.

    Where an image has one class of ours, an image of several is left out.
    """
    groups = shards.groups()
    patients = {groups[key] for key in seen if key in groups}
    rows, targets = [], []
    left_out: Counter[str] = Counter({OF_PATIENT: 0} if groups else {})  # earlier code scored them
    numbers = range(len(shards.rows["key"]))
    keys = shards.rows["key"].array.to_pylist()
    for row, labels in zip(numbers, shards.labels(numbers), strict=True):
        ours = {mapping[name] for name in labels or () if name in mapping}
        if labels is None:
            left_out["no label"] += 1
        elif labels and not ours:
            left_out[f"class {', '.join(labels)}"] += 1
        elif task == "multi-class" and len(ours) != 1:
            left_out["several classes" if ours else "no class"] += 1
        elif keys[row] in seen:
            left_out["twin of a training image"] += 1
        elif groups.get(keys[row]) in patients:
            left_out[OF_PATIENT] += 1
        else:
            rows.append(row)
            targets.append([name in ours for name in classes])
    return Selection(
        np.array(rows, np.int64), np.array(targets, np.int8).reshape(-1, len(classes)), dict(sorted(left_out.items()))
    )


# --- Runs ------------------------------------------------------------------------------------------------------------


def learnt_from(spec: FinetuneSpec, root: Path) -> list[tuple[Shards, tuple[str, ...]]]:
    """The shards whose images the run has seen, with the splits: of its pretraining the training images alone.

    Raises `ValueError` where they are not here.
    """
    own = shards_of(root, spec.dataset, size=spec.image_size)
    out: list[tuple[Shards, tuple[str, ...]]] = [(own, ("train", "val"))]
    parent = spec.pretrain
    if parent is not None and parent.dataset != spec.dataset:
        out.append((shards_of(root, parent.dataset, size=parent.image_size), ("train",)))
    return out


@dataclass
class Evaluator:
    """Tests finished fine-tunes on shards that none of them was trained on; what runs share is computed once."""

    shards: Shards
    given: Sequence[str]
    """Of `class_map`."""
    cluster: Cluster
    progress: Any
    _twins: dict[tuple[str, ...], list[TwinElsewhere]] = field(default_factory=dict)

    def mapping(self, run: Run) -> dict[str, str]:
        """`class_map` for a run; `ValueError` where it cannot be tested on these shards."""
        spec = run.spec
        assert isinstance(spec, FinetuneSpec)
        if spec.image_size != self.shards.size:
            raise ValueError(
                f"{self.shards.folder} has images of {self.shards.size} pixels, {run.id} takes {spec.image_size}: "
                f"shard them with --size {spec.image_size}"
            )
        if self.shards.fingerprint == spec.dataset.fingerprint:
            raise ValueError(f"{run.id} is trained on {self.shards.folder}: its own test scores are in the run")
        return class_map(read_classes(run["predictions"]), self.shards.classes, self.given)

    def done(self, run: Run) -> Evaluation | None:
        """What was found before of the run's present weights, by the same classes; raises as `mapping`."""
        shards = self.shards
        return known(run, shards.name, shards.fingerprint, self.mapping(run), run.weights_checksum)

    def twins(self, spec: FinetuneSpec) -> list[TwinElsewhere]:
        """The images that have a twin among those that the run has seen; raises as `learnt_from`."""
        seen = learnt_from(spec, Path(self.cluster.shards))
        key = tuple(other.fingerprint for other, _ in seen)
        if key not in self._twins:
            self._twins[key] = duplicates.twins_elsewhere(self.shards, seen, progress=self.progress)
        return self._twins[key]

    def evaluate(self, run: Run) -> Evaluation:
        """Score the images, store what was found in the run's folder; raises `ValueError` where it cannot be done."""
        from pipeline.learn import metrics
        from pipeline.models.info import ModelInfo
        from pipeline.models.network import BATCH, Network, settle_hardware

        spec, shards = run.spec, self.shards
        assert isinstance(spec, FinetuneSpec)
        mapping, info = self.mapping(run), ModelInfo.of_run(run)
        twins = self.twins(spec)
        chosen = select(shards, mapping, info.classes, info.task, {twin.key for twin in twins})
        if not len(chosen.rows):
            raise ValueError(f"no image of {shards.folder} is left: {reasons(chosen.left_out)}")
        device = settle_hardware(self.cluster)
        network = Network.of_run(run, info)
        network.model.to(device)
        blocks = self.progress(
            network.scores_of(shards, chosen.rows, self.cluster), total=-(-len(chosen.rows) // BATCH), what=run.id
        )
        scores = np.concatenate(list(blocks))
        keys, groups = (shards.rows[name].array.to_pylist() for name in ("key", "group"))
        found = Evaluation(
            dataset=shards.name,
            fingerprint=shards.fingerprint,
            weights_sha256=info.weights_sha256,
            mapping=mapping,
            images=len(chosen.rows),
            left_out=chosen.left_out,
            twins=[list(twin) for twin in twins],
            differs=differences(shards, learnt_from(spec, Path(self.cluster.shards))[0][0]),
            task=info.task,
            metrics=of_present(metrics.score(chosen.targets.astype(int), scores, info.classes, info.task)),
        )
        predictions = Predictions(
            [keys[row] for row in chosen.rows],
            info.classes,
            chosen.targets,
            scores,
            [groups[row] for row in chosen.rows],
        )
        with run.lock():
            write(run, found, predictions)
        return found


def of_present(metrics: dict[str, Any]) -> dict[str, Any]:
    """The metrics, F1 (macro) averaged over the classes that have images: the other dataset may lack some of ours."""
    share = float(np.mean([each["support"] > 0 for each in metrics["per_class"].values()]))
    if not share:
        return metrics
    out = {**metrics, "f1_macro": metrics["f1_macro"] / share}  # the F1 of a class without images is 0
    if majority := metrics["majority"]:
        out["majority"] = {**majority, "f1_macro": majority["f1_macro"] / share}
    return out


def differences(shards: Shards, trained: Shards) -> list[str]:
    """In what the images of two shards were stored in another way, apart from their size."""
    here, there = ({"decode": "exact", **of.manifest["settings"]} for of in (shards, trained))
    return [
        f"{name}: {here.get(name)}, in training {there.get(name)}"
        for name in STORED
        if here.get(name) != there.get(name)
    ]


def reasons(left_out: Mapping[str, int]) -> str:
    """`12 images: no label; 3 images: twin of a training image`."""
    found = {reason: count for reason, count in left_out.items() if count}
    return "; ".join(f"{counted(count, 'image')}: {reason}" for reason, count in found.items()) or "none left out"
