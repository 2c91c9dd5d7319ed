"""Trained networks: opened, asked for scores of arrays and files, with the transform that makes their input."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.data import images as decoding
from pipeline.runs.cluster import load_cluster

if TYPE_CHECKING:
    from torch import Tensor, nn

    from pipeline.models.network import Network

BATCH = 64


@dataclass(frozen=True)
class TrainedNetwork:
    """A network in evaluation mode on the cluster file's device, and what is known of it."""

    _network: Network

    @property
    def model(self) -> nn.Module:
        """The `torch.nn.Module` of timm: float32 [n, 3, size, size] → logits [n, classes]; of an arm, features."""
        return self._network.model

    @property
    def run(self) -> str:
        """The id of the run that trained it."""
        return self._network.info.run

    @property
    def backbone(self) -> str:
        """The name of the network in timm."""
        return self._network.info.backbone

    @property
    def task(self) -> str:
        """`multi-class`, `multi-label`, or `features`: an arm of a pretraining run, without its head."""
        return self._network.info.task

    @property
    def classes(self) -> tuple[str, ...]:
        """In the order of the outputs; empty for features."""
        return self._network.info.classes

    @property
    def image_size(self) -> int:
        """Pixels on a side of its input."""
        return self._network.info.image_size

    def transform(self, image: Any) -> Tensor:
        """Its input for one image, as in evaluation: a float32 tensor [3, size, size] on the CPU.

        image: uint8 [h, w], [h, w, 1] or [h, w, 3] (RGB), a PIL image, or the path of a file. The image is turned
        upright (PIL images and files), squashed to the network's size with antialiasing, and normalised. Raises
        `ValueError` for other arrays and for a file that cannot be used.
        """
        return self._network.images(self._pixels([image])).cpu()[0]

    def predict(self, images: Iterable[Any], *, calibrated: bool = False) -> np.ndarray:
        """The scores of images, float32 [n, classes]: sigmoids; probabilities by the run's temperature if `calibrated`.

        images: an array [n, h, w, 3], or a list of what `transform` takes, of any sizes. Raises `ValueError` as
        `transform`, for an arm (it has no classes), and where no temperature is known.
        """
        if not self.classes:
            raise ValueError(f"{self.run} is a pretraining run, which knows no classes; open one of its fine-tunes")
        rest, found = list(images), []
        for start in range(0, len(rest), BATCH):
            batch = self._network.images(self._pixels(rest[start : start + BATCH]))
            found.append(self._network.scores(batch, calibrated=calibrated))
        return np.concatenate(found) if found else np.empty((0, len(self.classes)), np.float32)

    def _pixels(self, images: Sequence[Any]) -> np.ndarray:
        """The images at the network's size: uint8 [n, size, size, 3]."""
        return np.stack([decoding.resize(_rgb(image), self.image_size) for image in images])


def open_network(source: str | Path, *, arm: str | None = None, cluster: str | Path = "local") -> TrainedNetwork:
    """The network of a finished run (id, part of it, or folder) or of an export's folder.

    arm: which network of a pretraining run; it comes without its head. This process then computes deterministically,
    with all cores that it may use.
    """
    from pipeline.models import network

    return TrainedNetwork(network.open_network(str(source), arm, load_cluster(str(cluster))))


def predict(
    source: str | Path | TrainedNetwork,
    images: Iterable[Any],
    *,
    calibrated: bool = False,
    cluster: str | Path = "local",
) -> np.ndarray:
    """`TrainedNetwork.predict` of a network, or of what `open_network` opens: float32 [n, classes]."""
    network = source if isinstance(source, TrainedNetwork) else open_network(source, cluster=cluster)
    return network.predict(images, calibrated=calibrated)


def _rgb(image: Any) -> np.ndarray:
    """One image as uint8 [h, w, 3]."""
    from PIL import Image, ImageOps

    if isinstance(image, (str, Path)):
        if not Path(image).is_file():
            raise ValueError(f"there is no file {image}")
        try:
            return decoding.decode(Path(image).read_bytes()).pixels
        except decoding.BadImage as error:
            raise ValueError(f"{image} {error}") from error
    if isinstance(image, Image.Image):
        return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    pixels = np.asarray(image)
    if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3) or pixels.shape[2:] not in ((), (1,), (3,)):
        raise ValueError(
            f"an image is {pixels.dtype} {list(pixels.shape)}; give uint8 [height, width] or [height, width, 3], "
            "a PIL image or a path"
        )
    if not pixels.size:
        raise ValueError(f"an image is empty, {list(pixels.shape)}; leave it out")
    return np.ascontiguousarray(np.broadcast_to(pixels.reshape(*pixels.shape[:2], -1), (*pixels.shape[:2], 3)))
