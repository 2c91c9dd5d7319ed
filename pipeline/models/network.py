"""A trained network at work: built from a run's folder or an export, and asked for scores."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from pipeline.learn import backbones, hardware
from pipeline.learn.augment import unit
from pipeline.models.info import FINETUNED, WEIGHTS, About
from pipeline.runs.cluster import Cluster
from pipeline.runs.folder import Run


@dataclass(frozen=True)
class Network:
    """A network in evaluation mode and what is known of it."""

    about: About
    model: nn.Module

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    def images(self, pixels: np.ndarray) -> Tensor:
        """Its input for images of its size: uint8 [n, size, size, 3] → float32 [n, 3, size, size]."""
        images = unit(torch.tensor(pixels, device=self.device))
        mean, std = (images.new_tensor(values).view(1, 3, 1, 1) for values in (self.about.mean, self.about.std))
        return (images - mean) / std

    @torch.no_grad()
    def scores(self, images: Tensor) -> np.ndarray:
        """The sigmoid of each class for such input: float32 [n, classes]."""
        scores: np.ndarray = torch.sigmoid(self.model(images).float()).cpu().numpy()
        return scores


def of_run(run: Run, about: About) -> Network:
    """The network of a finished run, on the CPU; a pretrained arm comes without its head."""
    model = _blank(about)
    state = backbones.load_arm(run["weights"], about.network)
    if about.network == FINETUNED:
        model.load_state_dict(state)
    else:
        backbones.load_body(model, state)
    return Network(about, model.eval())


def of_export(folder: Path, about: About) -> Network:
    """The network of an export, on the CPU."""
    model = _blank(about)
    model.load_state_dict(load_file(folder / WEIGHTS))
    return Network(about, model.eval())


def _blank(about: About) -> nn.Module:
    return backbones.build(
        about.backbone,
        outputs=len(about.classes),
        image_size=about.image_size,
        weights="random",
        folder=Path(),
    )


def settle(cluster: Cluster) -> torch.device:
    """Make this process compute in float32 and deterministically, on the site's device with all its cores."""
    chosen = hardware.choose(cluster, "float32")
    hardware.settle(dataclasses.replace(chosen, threads=len(os.sched_getaffinity(0))))
    return chosen.torch_device
