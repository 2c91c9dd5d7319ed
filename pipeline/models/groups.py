"""Predictions of patients or lesions: which images belong together, by which rule, and the result as table or CSV."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.core import console, files
from pipeline.data.formats import kinds
from pipeline.data.layouts.groups import group_in
from pipeline.data.shards.index import Shards, shards_of
from pipeline.data.shards.keys import group_hashes
from pipeline.learn.by_group import DEFAULT, Choice, Units, choose
from pipeline.models.contents import Contents, Given
from pipeline.models.info import ModelInfo, is_export
from pipeline.models.predict import Prediction, named_scores, predicted_classes
from pipeline.runs.cluster import Cluster
from pipeline.runs.folder import find_run
from pipeline.runs.predictions import read_predictions
from pipeline.runs.spec import FinetuneSpec


@dataclass(frozen=True)
class GroupPrediction:
    """The scores of a group, float32 [classes], and the classes predicted from them."""

    name: str
    images: int
    scores: np.ndarray
    classes: list[str]


def groups_of_paths(images: Sequence[Given], pattern: str, folders: Sequence[Path]) -> dict[str, str]:
    """What a regular expression finds in each path below the folder it is in, as `shard --group-from`; by name.

    Images in whose paths it finds nothing are left out. Of a set that holds DICOM a group's name, which can be that of
    a patient, becomes a hash of its images, as in shards. Raises `ValueError` where it finds nothing in any.
    """
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise ValueError(f"--by-group {pattern!r} is no regular expression: {error}") from error
    out = {}
    for image in images:
        path = image.source.path
        root = next((folder for folder in folders if path.is_relative_to(folder) and path != folder), Path())
        below = path.relative_to(root) if path.is_relative_to(root) else path
        if (found := group_in(below.as_posix(), expression)) is not None:
            out[image.name] = found
    if images and not out:
        raise ValueError(f"--by-group {pattern!r} finds a group in no path; the first image is {images[0].name!r}")
    if any(image.source.kind == kinds.DICOM for image in images):
        hashes = group_hashes((out[each.name], each.source.checksum) for each in images if each.name in out)
        return {name: hashes[group] for name, group in out.items()}
    return out


def rule_for(text: str, cluster: Cluster) -> Choice:
    """The rule that fits the validation groups of a run; the mean where there are none, and for an export."""
    if is_export(Path(text)):
        return Choice(DEFAULT, "an export holds no validation scores")
    run = find_run(Path(cluster.runs), text)
    spec = run.spec
    assert isinstance(spec, FinetuneSpec)
    if not run["val_predictions"].exists():
        return choose([], {}, "", "")
    run.check("val_predictions", "predict")
    try:
        shards = shards_of(Path(cluster.shards), spec.dataset, size=spec.image_size)
    except ValueError:
        return Choice(DEFAULT, "the shards that know the validation groups are not here")
    validation = read_predictions(run["val_predictions"])
    return choose([validation], shards.groups(), str(shards.manifest["metric"]), run.result().task)


@dataclass(frozen=True)
class Grouping:
    """Which images belong together, and how the score of a group follows from theirs."""

    groups: Mapping[str, str]
    """Of the images that have one, by the images' names."""
    choice: Choice

    def text(self, *, calibrated: bool = False) -> str:
        text = f"the score of a group is the {self.choice.rule} of its images' ({self.choice.reason})"
        if not calibrated:
            return text
        return (
            text
            + "; images are calibrated, groups are not: their scores are no probabilities, and need not add up to 1"
        )


def find(
    text: str, pattern: str, shards: Shards | None, contents: Contents, folders: Sequence[Path], cluster: Cluster
) -> Grouping:
    """The groups of shards by their index, of files by a regular expression or by their headers, and the rule that fits
    the network.

    Raises `ValueError` where there is no group.
    """
    if shards is None and not pattern and not contents.groups:
        raise ValueError("--by-group needs a REGEX that finds the patient or lesion in the path of a file")
    if shards is not None and pattern:
        raise ValueError("the index of shards knows their groups; give --by-group without a REGEX")
    if shards:
        groups = shards.groups()
    else:
        groups = groups_of_paths(contents.images, pattern, folders) if pattern else contents.groups
    if not groups:
        raise ValueError(f"no image of {shards.folder if shards else folders} has a group")
    return Grouping(groups, rule_for(text, cluster))


def by_group(predicted: Sequence[Prediction], grouping: Grouping, info: ModelInfo) -> list[GroupPrediction]:
    """The groups of some images, in the order of their first images; an image without a group is one of its own."""
    if not predicted:
        return []
    units = Units.of_images([each.name for each in predicted], grouping.groups)
    scores = units.scores(np.stack([each.scores for each in predicted]), grouping.choice.rule).astype(np.float32)
    return [
        GroupPrediction(name, len(members), row, predicted_classes(row, info))
        for name, members, row in zip(units.names, units.members(), scores, strict=True)
    ]


def as_table(found: Sequence[GroupPrediction], classes: Sequence[str]) -> str:
    rows = [
        [each.name, each.images, ", ".join(each.classes) or "–", *(f"{score:.3f}" for score in each.scores)]
        for each in found
    ]
    return console.table(rows, header=("group", "images", "predicted", *classes))


def as_csv(found: Sequence[GroupPrediction], classes: Sequence[str]) -> str:
    """CSV with the columns `group`, `images`, `predicted` (several joined by `;`) and `score:<class>`."""
    rows = [[each.name, str(each.images), ";".join(each.classes), *map(str, each.scores)] for each in found]
    return files.csv_text([["group", "images", "predicted", *(f"score:{name}" for name in classes)], *rows])


def as_json(found: Sequence[GroupPrediction], classes: Sequence[str]) -> list[dict[str, Any]]:
    """What `--json` says of each group."""
    return [
        {
            "group": each.name,
            "images": each.images,
            "predicted": each.classes,
            "scores": named_scores(each.scores, classes),
        }
        for each in found
    ]
