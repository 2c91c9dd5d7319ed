"""An export: a folder that stock timm loads with `create_model("local-dir:…")`, whole or not there."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from safetensors.torch import save

from pipeline.core import files
from pipeline.models import model_card, network, onnx
from pipeline.models.info import FILE, WEIGHTS, About, is_export, of_export
from pipeline.runs.folder import Run

CONFIG = "config.json"
CARD = "README.md"
KEPT = ("fixed_input_size", "first_conv", "classifier", "license", "origin_url")  # of timm's own configuration


def find(folder: Path, about: About) -> bool:
    """Whether `folder` is an export of this network already; `ValueError` where it holds anything else."""
    if is_export(folder):
        there = of_export(folder)
        if there.is_of(about):
            return True
        other = f"{there.network} of {there.run}" if there.run != about.run or there.network != about.network else ""
        raise ValueError(
            f"{folder} is an export of {other or f'{about.run} with other weights'}; choose another --out, or delete it"
        )
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        raise ValueError(f"{folder} is there and is no export of {about.run}; choose another --out")
    return False


def write(run: Run, about: About, folder: Path, *, with_onnx: bool) -> float | None:
    """Make the export; returns the ONNX graph's largest difference from torch, None without a graph."""
    trained = network.of_run(run, about)
    data, difference = onnx.graph(trained) if with_onnx else (b"", None)
    with files.publish_folder(folder) as temporary:
        with files.publish(temporary / WEIGHTS) as file:
            tensors = {name: value.contiguous() for name, value in trained.model.state_dict().items()}
            file.write(save(tensors, metadata={"format": "pt"}))
        files.write_json(temporary / CONFIG, timm_config(trained))
        files.write_json(temporary / FILE, dataclasses.asdict(about))
        if with_onnx:
            _write_bytes(temporary / onnx.FILE, data)
        files.write_text(temporary / CARD, model_card.text(run, about, with_onnx=with_onnx))
    return difference


def add_onnx(run: Run, about: About, folder: Path) -> float:
    """Add the ONNX graph to an export that has none; returns its largest difference from torch."""
    data, difference = onnx.graph(network.of_export(folder, about))
    _write_bytes(folder / onnx.FILE, data)
    files.write_text(folder / CARD, model_card.text(run, about, with_onnx=True))
    return difference


def timm_config(trained: network.Network) -> dict[str, Any]:
    """The `config.json` with which timm builds the network and prepares its images as this project does.

    A squash to the whole size (crop_pct 1), bilinear, then mean and standard deviation: `resolve_model_data_config`
    and `create_transform` make of it what `data.images` and `learn.augment` do.
    """
    about, source = trained.about, trained.model.pretrained_cfg
    assert isinstance(source, dict)
    size = [3, about.image_size, about.image_size]
    config: dict[str, Any] = {
        "architecture": about.backbone.split(".")[0],
        "num_classes": len(about.classes),
        "num_features": trained.model.num_features,
        **({"label_names": list(about.classes)} if about.classes else {}),
        "pretrained_cfg": {
            **{name: source[name] for name in KEPT if name in source},
            "tag": about.run,
            "custom_load": False,
            "input_size": size,
            "interpolation": "bilinear",
            "crop_pct": 1.0,
            "crop_mode": "squash",
            "mean": list(about.mean),
            "std": list(about.std),
            "num_classes": len(about.classes),
            "pool_size": None,
        },
    }
    json.dumps(config)  # timm's own values must be plain
    return config


def _write_bytes(path: Path, data: bytes) -> None:
    with files.publish(path) as file:
        file.write(data)
