"""Exports: folders that stock timm loads with `create_model("local-dir:…")`; one is there complete or not at all."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from safetensors.torch import save

from pipeline.core import files, seals
from pipeline.models import model_card, onnx
from pipeline.models.info import FILE, WEIGHTS, ModelInfo, is_export
from pipeline.models.network import Network
from pipeline.runs.folder import Run

CONFIG = "config.json"
MODEL_CARD = "README.md"
KEPT = ("fixed_input_size", "first_conv", "classifier", "license", "origin_url")  # of timm's own configuration


def exists(folder: Path, info: ModelInfo) -> bool:
    """Whether `folder` is an export of this network already; `ValueError` where it holds anything else."""
    if is_export(folder):
        found = ModelInfo.of_export(folder)
        if found.is_same_network(info):
            return True
        same = (found.run, found.network) == (info.run, info.network)
        other = f"{info.run} with other weights" if same else f"{found.network} of {found.run}"
        raise ValueError(f"{folder} is an export of {other}; choose another --out, or delete it")
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        raise ValueError(f"{folder} exists and is not an export of {info.run}; choose another --out")
    return False


def write(run: Run, info: ModelInfo, folder: Path, *, with_onnx: bool, shards: Path) -> float | None:
    """Make the export; returns the ONNX graph's largest difference from torch, None without a graph.

    shards: the folder of all shards, from which the model card takes what it says of the images.
    """
    info = info.with_prepared(shards)
    network = Network.of_run(run, info)
    graph, difference = onnx.graph(network) if with_onnx else (b"", None)
    with files.publish_folder(folder) as temporary:
        with files.publish(temporary / WEIGHTS) as file:
            tensors = {name: value.contiguous() for name, value in network.model.state_dict().items()}
            file.write(save(tensors, metadata={"format": "pt"}))
        files.write_json(temporary / CONFIG, timm_config(network))
        files.write_json(temporary / FILE, seals.sealed(dataclasses.asdict(info), [temporary / WEIGHTS]))
        if with_onnx:
            _write_bytes(temporary / onnx.FILE, graph)
        files.write_text(temporary / MODEL_CARD, model_card.text(run, info, with_onnx=with_onnx, shards=shards))
    return difference


def add_onnx(run: Run, info: ModelInfo, folder: Path, *, shards: Path) -> float:
    """Add the ONNX graph to an export that has none; returns its largest difference from torch."""
    graph, difference = onnx.graph(Network.of_export(folder, info))
    _write_bytes(folder / onnx.FILE, graph)
    files.write_text(folder / MODEL_CARD, model_card.text(run, info, with_onnx=True, shards=shards))
    return difference


def timm_config(network: Network) -> dict[str, Any]:
    """The `config.json` with which timm builds the network and prepares its images as this project does.

    With these values timm's `resolve_model_data_config` and `create_transform` do what `data.images` and
    `learn.augment` do: squash the image to the whole size (crop_pct 1, bilinear), then normalise by mean and std.
    """
    info, source, given = network.info, network.model.pretrained_cfg, network.info.given
    assert isinstance(source, dict)
    kept = {name: source[name] for name in KEPT if name in source}
    if given is not None:  # timm's are those of its own weights
        kept = {**kept, "license": given.licence, "origin_url": None}
    config: dict[str, Any] = {
        "architecture": info.backbone.split(".")[0],
        "num_classes": len(info.classes),
        "num_features": network.model.num_features,
        **({"label_names": list(info.classes)} if info.classes else {}),
        **({"model_args": dict(given.arguments)} if given and given.arguments else {}),
        "pretrained_cfg": {
            **kept,
            "tag": info.run,
            "custom_load": False,
            "input_size": [3, info.image_size, info.image_size],
            "interpolation": "bilinear",
            "crop_pct": 1.0,
            "crop_mode": "squash",
            "mean": list(info.mean),
            "std": list(info.std),
            "num_classes": len(info.classes),
            "pool_size": None,
        },
    }
    json.dumps(config)  # raises for a value of timm's that JSON cannot hold
    return config


def _write_bytes(path: Path, data: bytes) -> None:
    with files.publish(path) as file:
        file.write(data)
