"""Scores of image files in their order, a batch at a time, and what is decided from them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np

from pipeline.data.images import BadImage
from pipeline.learn.attention import attention_map
from pipeline.models import inputs
from pipeline.models.info import About
from pipeline.models.network import Network

BATCH = 64


def scored(network: Network, paths: Sequence[Path], attention: Path | None) -> Iterator[np.ndarray | BadImage]:
    """The scores of each file, float32 [classes], or why it has none.

    With `attention` every image is also drawn there with its map, as `<its place>-<its name>.png`. `ValueError` at
    once where the network has no such map.
    """
    size = network.about.image_size
    if attention is not None:
        attention_map(network.model, network.images(np.zeros((1, size, size, 3), dtype=np.uint8)))
    width = len(str(len(paths)))
    source = inputs.loaded(paths, size=size, show=attention is not None)
    numbered = enumerate(source, start=1)
    while batch := list(islice(numbered, BATCH)):
        good = [(number, image) for number, image in batch if isinstance(image, inputs.LoadedImage)]
        scores: dict[int, np.ndarray] = {}
        if good:
            images = network.images(np.stack([image.pixels for _, image in good]))
            scores = {number: row for (number, _), row in zip(good, network.scores(images), strict=True)}
            if attention is not None:
                maps = attention_map(network.model, images).cpu().numpy()
                for (number, image), seen in zip(good, maps, strict=True):
                    assert image.shown is not None
                    name = f"{number:0{width}d}-{paths[number - 1].stem}.png"
                    inputs.draw(attention / name, image.shown, seen)
        for number, answer in batch:
            yield answer if isinstance(answer, BadImage) else scores[number]


def decided(scores: np.ndarray, about: About) -> list[str]:
    """The classes said to be there: the highest score's, or with several classes an image all above 0.5."""
    if about.task == "multi-class":
        return [about.classes[int(scores.argmax())]]
    return [name for name, score in zip(about.classes, scores, strict=True) if score > 0.5]
