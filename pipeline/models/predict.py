"""Predictions for new images: the scores of each file in turn, its classes, and both as a table or as CSV."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.core import console, files
from pipeline.data.images import BadImage
from pipeline.data.shards.index import Shards
from pipeline.data.shards.transcode import ShardSettings
from pipeline.learn.attention import attention_map
from pipeline.models import inputs, maps
from pipeline.models.contents import Given
from pipeline.models.info import ModelInfo
from pipeline.models.network import Network
from pipeline.runs.cluster import Cluster

BATCH = 64


@dataclass(frozen=True)
class Prediction:
    """The scores of one image, float32 [classes], and the classes predicted from them."""

    name: str
    scores: np.ndarray
    classes: list[str]
    peak: int | None = None
    """The greatest stored value of a 16-bit grey image."""
    remarks: tuple[str, ...] = ()
    """How its grey levels came about, of DICOM and the like."""


@dataclass(frozen=True)
class Skipped:
    """An image that cannot be used, and why."""

    name: str
    reason: str


def predictions(
    network: Network,
    given: Sequence[Given],
    attention: Path | None,
    settings: ShardSettings | None = None,
    bits: int | None = None,
    *,
    calibrated: bool = False,
) -> Iterator[Prediction | Skipped]:
    """The prediction for each image in turn, or why it has none; `settings` and `bits` say how it is read.

    With `attention` every image is also drawn there with its attention map, as `<its number>-<its stem>.png`. Raises
    `ValueError` before anything is drawn where the network has no such map, or no temperature for calibrated scores.
    """
    size = network.info.image_size
    if calibrated:
        network.known_temperature()
    if attention is not None:
        attention_map(network.model, network.images(np.zeros((1, size, size, 3), dtype=np.uint8)))
    width = len(str(len(given)))
    loaded_all = inputs.load_all(given, size=size, show=attention is not None, settings=settings, bits=bits)
    numbered = enumerate(loaded_all, start=1)
    while batch := list(islice(numbered, BATCH)):
        good = [(number, image) for number, image in batch if isinstance(image, inputs.LoadedImage)]
        scores: dict[int, np.ndarray] = {}
        if good:
            images = network.images(np.stack([image.pixels for _, image in good]))
            found = network.scores(images, calibrated=calibrated)
            scores = {number: row for (number, _), row in zip(good, found, strict=True)}
            if attention is not None:
                all_maps = attention_map(network.model, images).cpu().numpy()
                for (number, image), one_map in zip(good, all_maps, strict=True):
                    assert image.shown is not None
                    name = f"{number:0{width}d}-{given[number - 1].stem}.png"
                    said = prediction_text(scores[number], network.info)
                    maps.draw_attention(attention / name, image.shown, one_map, said)
        for number, loaded in batch:
            name = given[number - 1].name
            if isinstance(loaded, BadImage):
                yield Skipped(name, str(loaded))
            else:
                classes = predicted_classes(scores[number], network.info)
                yield Prediction(name, scores[number], classes, loaded.peak, loaded.remarks)


def predictions_of_shards(
    network: Network, shards: Shards, cluster: Cluster, *, calibrated: bool = False
) -> Iterator[Prediction | Skipped]:
    """The prediction for each image of shards, by its key, in the order of the index."""
    if shards.size != network.info.image_size:
        raise ValueError(
            f"{shards.folder} has images of {shards.size} pixels; the network takes {network.info.image_size}"
        )
    keys = shards.rows["key"].array.to_pylist()
    batches = network.scores_of(shards, np.arange(len(keys)), cluster, calibrated=calibrated)
    for key, scores in zip(keys, (row for batch in batches for row in batch), strict=True):
        yield Prediction(key, scores, predicted_classes(scores, network.info))


def predicted_classes(scores: np.ndarray, info: ModelInfo) -> list[str]:
    """The class of the highest score; where an image may have several classes, every class above 0.5."""
    if info.task == "multi-class":
        return [info.classes[int(scores.argmax())]]
    return [name for name, score in zip(info.classes, scores, strict=True) if score > 0.5]


def prediction_text(scores: np.ndarray, info: ModelInfo) -> str:
    """What a map says below the image: the predicted classes with their scores, or the best one and that it is none."""
    names = predicted_classes(scores, info)
    best = info.classes[int(scores.argmax())]
    score_of = dict(zip(info.classes, scores, strict=True))
    if not names:
        return f"no class above 0.5; the highest: {best} {score_of[best]:.3f}"
    return "predicted: " + ", ".join(f"{name} {score_of[name]:.3f}" for name in names)


def as_table(predicted: Sequence[Prediction], classes: Sequence[str]) -> str:
    """Aligned text: each image with its predicted classes and the score of every class."""
    rows = [
        [each.name, ", ".join(each.classes) or "–", *(f"{score:.3f}" for score in each.scores)] for each in predicted
    ]
    return console.table(rows, header=("image", "predicted", *classes))


def as_csv(predicted: Sequence[Prediction], classes: Sequence[str]) -> str:
    """CSV with the columns `picture`, `predicted` (several joined by `;`) and `score:<class>`."""
    header = ["picture", "predicted", *(f"score:{name}" for name in classes)]
    rows = [[each.name, ";".join(each.classes), *map(str, each.scores)] for each in predicted]
    return files.csv_text([header, *rows])


def as_json(found: Sequence[Prediction], classes: Sequence[str]) -> list[dict[str, Any]]:
    """What `--json` says of each image."""
    return [
        {"image": each.name, "predicted": each.classes, "scores": named_scores(each.scores, classes)} for each in found
    ]


def named_scores(scores: np.ndarray, classes: Sequence[str]) -> dict[str, float]:
    """Scores by class, in the digits that float32 has."""
    return {name: float(str(score)) for name, score in zip(classes, scores, strict=True)}
