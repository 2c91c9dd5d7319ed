"""Brings start weights into the site's folder: fetched by name, or taken from a file; checked and described there.

Only the functions that fetch use the network.
"""

from __future__ import annotations

import pickle
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import nn

from pipeline.core import files
from pipeline.learn import backbones
from pipeline.learn.weights import HUB_FILE, HUB_PREFIX, description, hub_name, prefetched, stored
from pipeline.runs.start_weights import UNKNOWN, check_normalisation

HUB_CONFIG = "config.json"
OLD_HUB_FILE = "pytorch_model.bin"  # of repositories without safetensors
KEPT_BY_RUN = ("num_classes", "img_size", "dynamic_img_size", "dynamic_img_pad", "in_chans")
"""Arguments of networks that a run decides itself."""


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What is said of weights: by timm, by a `config.json` in timm's form, or by the user. None: nothing."""

    backbone: str | None = None
    licence: str | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    input_size: int | None = None
    arguments: Mapping[str, float | int | str | bool] = field(default_factory=dict)

    def over(self, other: Facts) -> Facts:
        """These facts, and the other's where there are none."""
        own = {name: value for name, value in vars(self).items() if value is not None and value != {}}
        return replace(other, **own)


def fetch(name: str, folder: Path) -> str:
    """Bring the weights of a timm tag or of `hf-hub:OWNER/NAME` into the folder; returns their SHA-256.

    `ValueError` where they cannot be had or do not fit their network.
    """
    if name.startswith(HUB_PREFIX):
        facts = read_config(_download(hub_name(name), HUB_CONFIG))
        return _add(name, _download(hub_name(name), HUB_FILE, OLD_HUB_FILE), facts, folder)
    path = prefetched(name, folder)
    if not path.is_file():
        _copy(_download(_hub_of_tag(name), HUB_FILE), path)
    return _describe(name, files.sha256_file(path), facts_of_tag(name), folder)


def take_file(path: Path, name: str, said: Facts, folder: Path) -> str:
    """Bring weights from a safetensors file, or a state dict of torch, into the folder under a name; their SHA-256.

    A `config.json` next to the file says what the user does not. `ValueError` where the file is missing, is something
    else, or does not fit its network.
    """
    if not path.is_file():
        raise ValueError(f"there is no file {path}; give a safetensors file, or a state dict of torch (.pth, .pt)")
    if not re.fullmatch(r"[A-Za-z0-9][\w.+-]*", name) or name in ("imagenet", "random"):
        raise ValueError(f"{name!r} is no name for weights; give --name with letters, digits and . _ + -")
    config = path.parent / HUB_CONFIG
    return _add(name, path, said.over(read_config(config)) if config.is_file() else said, folder)


def read_config(path: Path) -> Facts:
    """What a `config.json` in timm's form says: of the hub, of timm's own export, or of `pipeline.export`."""
    with files.reading(path, "give a config.json as timm writes it"):
        value = files.read_json(path, dict, keys=("architecture",))
        config = value.get("pretrained_cfg", value)
        size = config.get("input_size")
        return Facts(
            backbone=str(value["architecture"]),
            licence=config.get("license"),
            mean=tuple(map(float, config["mean"])) if "mean" in config else None,
            std=tuple(map(float, config["std"])) if "std" in config else None,
            input_size=int(size[-1]) if size else None,
            arguments=_scalars(value.get("model_args") or {}),
        )


def facts_of_tag(tag: str) -> Facts:
    """What timm says of a network and of the weights of its tag."""
    config = backbones.timm_config(tag)
    return Facts(
        backbone=tag,
        licence=config.license,
        mean=tuple(config.mean),
        std=tuple(config.std),
        input_size=int(config.input_size[-1]),
    )


def _scalars(arguments: Mapping[str, Any]) -> dict[str, float | int | str | bool]:
    """The arguments of a network that a run does not decide; `ValueError` for what a spec cannot hold."""
    kept = {name: value for name, value in arguments.items() if name not in KEPT_BY_RUN and value is not None}
    for name, value in kept.items():
        if not isinstance(value, (int, float, str, bool)):
            raise ValueError(f"the argument {name} of the network is {value!r}; only numbers and words can be used")
    return kept


def _add(name: str, path: Path, facts: Facts, folder: Path) -> str:
    """Check weights against their network, copy them under their hash and describe them; returns the SHA-256."""
    tag = facts.backbone
    if tag is None:
        raise ValueError(f"{path} does not say of which network it is; give --backbone with timm's name")
    of_timm = facts_of_tag(tag)
    facts = facts.over(replace(of_timm, licence=None, input_size=None))  # timm's are those of its own weights
    check_normalisation(name, facts.mean or (), facts.std or ())
    source = path
    if path.suffix != ".safetensors":
        source = description(name, folder).with_suffix(".converted.safetensors")
        with files.publish(source) as out:
            out.write(save(_state_dict(path), metadata={"format": "pt"}))
    try:
        size = facts.input_size or of_timm.input_size or 224
        backbones.with_body(tag, source, outputs=0, image_size=size, arguments=facts.arguments)
        sha256 = files.sha256_file(source)
        _copy(source, stored(sha256, folder))
    finally:
        if source != path:
            source.unlink(missing_ok=True)
    return _describe(name, sha256, facts, folder)


def _state_dict(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a file of torch, read without running any code that it may hold."""
    from timm.models import load_state_dict

    try:
        found = load_state_dict(str(path), weights_only=True)
        return {name: tensor.contiguous().clone() for name, tensor in found.items() if isinstance(tensor, torch.Tensor)}
    except (RuntimeError, pickle.UnpicklingError, AttributeError, EOFError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"{path} is no state dict that torch reads with weights_only: {reason}") from error


def _describe(name: str, sha256: str, facts: Facts, folder: Path) -> str:
    assert facts.backbone is not None
    value = {
        "name": name,
        "backbone": facts.backbone,
        "role": _role(facts.backbone),
        "sha256": sha256,
        "licence": facts.licence or UNKNOWN,
        "mean": facts.mean,
        "std": facts.std,
        "input_size": facts.input_size,
        "arguments": dict(facts.arguments),
    }
    files.write_json(description(name, folder), value)
    return sha256


def _role(tag: str) -> str:
    """`transformer` for a network with self-attention, else `cnn`; built without memory for its weights."""
    import timm

    with torch.device("meta"):
        model: nn.Module = timm.create_model(tag)
    return "transformer" if any("Attention" in type(module).__name__ for module in model.modules()) else "cnn"


def _hub_of_tag(tag: str) -> str:
    """The hub's repository of a tag: timm's own, unless timm names another one."""
    try:
        named = backbones.timm_config(tag).hf_hub_id
    except ValueError:  # of another version of timm
        named = None
    return str(named) if named and not named.endswith("/") else hub_name(tag)


def _download(repository: str, file: str, otherwise: str | None = None) -> Path:
    """A file of the hub, in its cache, or the other one where there is none; `ValueError` if it cannot be had."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError

    try:
        try:
            return Path(hf_hub_download(repository, file))
        except EntryNotFoundError:
            if otherwise is None:
                raise
            return Path(hf_hub_download(repository, otherwise))
    except (HfHubHTTPError, OSError) as error:
        raise ValueError(
            f"{repository} could not be fetched ({type(error).__name__}); run this where there is a network, or set "
            "HF_ENDPOINT to a mirror"
        ) from error


def _copy(source: Path, target: Path) -> None:
    with open(source, "rb") as content, files.publish(target) as out:
        shutil.copyfileobj(content, out, 1 << 20)
