"""Trained networks: built from a run's folder or an export, and asked for scores."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from pipeline.core import files, seals
from pipeline.data.pixel_map import open_pixels
from pipeline.data.shards.index import Shards
from pipeline.learn import backbones, calibration, hardware, weights
from pipeline.learn.augment import unit
from pipeline.learn.samples import gather
from pipeline.models.info import FILE, FINETUNED, MOVE, WEIGHTS, ModelInfo, is_export
from pipeline.runs.cluster import Cluster
from pipeline.runs.folder import Run, find_run
from pipeline.runs.spec import PretrainSpec
from pipeline.runs.start_weights import StartWeights

BATCH = 64


@dataclass(frozen=True)
class Network:
    """A network in evaluation mode, and what is known of it."""

    info: ModelInfo
    model: nn.Module

    @classmethod
    def of_run(cls, run: Run, info: ModelInfo) -> Network:
        """The network of a finished run, on the CPU; a pretrained arm comes without its head."""
        return cls(info, rebuild(run, info.network, outputs=len(info.classes)))

    @classmethod
    def of_export(cls, folder: Path, info: ModelInfo) -> Network:
        """The network of an export, on the CPU."""
        try:
            seals.checked_sha256(folder / WEIGHTS, seals.read_sealed(folder / FILE))
        except seals.Damaged as error:
            raise seals.Damaged(f"{error}; {MOVE}") from None
        model = _untrained(info.backbone, len(info.classes), info.image_size, info.given)
        model.load_state_dict(load_file(folder / WEIGHTS))
        return cls(info, model.eval())

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    def images(self, pixels: np.ndarray) -> Tensor:
        """Its input for images of its size: uint8 [n, size, size, 3] → float32 [n, 3, size, size]."""
        images = unit(torch.tensor(pixels, device=self.device))
        mean, std = (images.new_tensor(values).view(1, 3, 1, 1) for values in (self.info.mean, self.info.std))
        return (images - mean) / std

    def scores_of(
        self, shards: Shards, rows: np.ndarray, cluster: Cluster, *, calibrated: bool = False
    ) -> Iterator[np.ndarray]:
        """The scores of rows of shards in batches: float32 [≤ BATCH, classes] each."""
        read, side = gather(open_pixels(shards, cluster)), shards.size
        for start in range(0, len(rows), BATCH):
            batch = rows[start : start + BATCH]
            pixels = torch.empty((len(batch), side, side, 3), dtype=torch.uint8)
            read(batch, pixels)
            yield self.scores(self.images(pixels.numpy()), calibrated=calibrated)

    @torch.no_grad()
    def scores(self, images: Tensor, *, calibrated: bool = False) -> np.ndarray:
        """The sigmoid of each class for such input, or its calibrated probability: float32 [n, classes]."""
        logits = self.model(images).float()
        if calibrated:
            found = calibration.probabilities(logits.cpu().numpy(), self.known_temperature(), self.info.task)
            return found.astype(np.float32)
        scores: np.ndarray = torch.sigmoid(logits).cpu().numpy()
        return scores

    def known_temperature(self) -> float:
        """The temperature of calibrated scores; `ValueError` where it is not known."""
        if self.info.temperature is None:
            raise ValueError(
                f"{self.info.run} has no temperature, since an earlier version trained or exported it; leave "
                "--calibrated out, or train it again (python -m pipeline.clean --restart)"
            )
        return self.info.temperature


def rebuild(run: Run, network: str, *, outputs: int) -> nn.Module:
    """One of a run's networks with its stored weights, on the CPU, in evaluation mode.

    network: `FINETUNED`, or an arm of a pretraining run, which is built without its head (outputs: 0).
    """
    spec = run.spec
    source = spec.arm(network) if isinstance(spec, PretrainSpec) else spec
    model = _untrained(source.backbone, outputs, spec.image_size, source.given)
    state = backbones.load_arm(run["weights"], network)
    if network == FINETUNED:
        model.load_state_dict(state)
    else:
        backbones.load_body(model, state)
    return model.eval()


def _untrained(backbone: str, outputs: int, image_size: int, given: StartWeights | None) -> nn.Module:
    return backbones.build(
        backbone, outputs=outputs, image_size=image_size, weights="random", folder=Path(), given=given
    )


def open_classifier(text: str, cluster: Cluster) -> Network:
    """The network of an export (its folder) or of a fine-tuning run (its folder or id), on the site's device.

    Raises `ValueError` for what has no classes: a pretraining run, and the export of a pretrained arm.
    """
    if not is_export(Path(text)):
        run = find_run(Path(cluster.runs), text)
        if isinstance(run.spec, PretrainSpec):
            raise ValueError(f"{run.id} is a pretraining run, which knows no classes; give one of its fine-tuning runs")
    network = open_network(text, None, cluster)
    if not network.info.classes:
        raise ValueError(f"{text} holds a pretrained arm, which knows no classes; export one of its fine-tuning runs")
    return network


def open_network(text: str, arm: str | None, cluster: Cluster) -> Network:
    """The network of an export or of any finished run, on the site's device; `arm` chooses one of a pretraining run."""
    folder, device = Path(text), settle_hardware(cluster)
    if is_export(folder):
        if arm is not None:
            raise ValueError(f"{folder} is an export and has one network; leave --arm {arm} out")
        network = Network.of_export(folder, ModelInfo.of_export(folder))
    else:
        run = find_run(Path(cluster.runs), text)
        network = Network.of_run(run, ModelInfo.of_run(run, arm))
    network.model.to(device)
    return network


def open_weights(text: str, backbone: str | None, image_size: int, cluster: Cluster) -> Network:
    """A network without its head that nobody trained here, on the site's device, with its own normalisation.

    `text` names start weights in the site's folder; or, of timm's model `backbone`, it is a safetensors file, or
    `imagenet`. Raises `ValueError` where the file is missing or does not fit.
    """
    device, folder = settle_hardware(cluster), Path(cluster.weights)
    if backbone is None:
        found = weights.known(text, folder)
        backbone, given = found.backbone, found.weights
        (mean, std), file = given.normalisation, weights.weights_file(text, folder, given)
        arguments = given.arguments
    else:
        config = backbones.timm_config(backbone)
        mean, std, arguments = tuple(config.mean), tuple(config.std), {}
        file = weights.weights_file(backbone, folder) if text == "imagenet" else Path(text)
    if not file.is_file():
        raise ValueError(f"there is no file {file}; give a safetensors file, or imagenet for timm's own weights")
    model = backbones.with_body(backbone, file, outputs=0, image_size=image_size, arguments=arguments)
    info = ModelInfo(
        run="",
        network=file.name if text == "imagenet" else Path(text).name,
        backbone=backbone,
        task="features",
        classes=(),
        image_size=image_size,
        mean=mean,
        std=std,
        weights_sha256=files.sha256_file(file),
        spec={},
    )
    return Network(info, model.eval().to(device))


def settle_hardware(cluster: Cluster) -> torch.device:
    """Make this process compute in float32 and deterministically, on the site's device with all CPU cores."""
    chosen = hardware.choose(cluster, "float32")
    hardware.make_deterministic(dataclasses.replace(chosen, threads=len(os.sched_getaffinity(0))))
    return chosen.torch_device
