"""Which weights a run starts from, and where they are on this machine (`learn/store` brings them there).

Files in the site's folder come first, then the cache of the hub. Nothing imports torch.
"""

from __future__ import annotations

import difflib
import functools
import importlib.util
import os
import re
from dataclasses import dataclass
from pathlib import Path

from pipeline.core import files
from pipeline.runs.spec import PretrainSpec, Spec
from pipeline.runs.start_weights import StartWeights

HUB_FILE = "model.safetensors"
HUB_PREFIX = "hf-hub:"


def start_weights(spec: Spec) -> dict[str, StartWeights | None]:
    """The weights that a run itself starts from, by name; None: ImageNet's, by the tag of the backbone.

    A fine-tune of a pretrained arm has none.
    """
    if isinstance(spec, PretrainSpec):
        found = [(arm.backbone, arm.weights, arm.given) for arm in spec.arms]
    else:
        found = [(spec.backbone, spec.weights, spec.given)] if spec.pretrain is None else []
    return {given.name if given else tag: given for tag, weights, given in found if weights != "random"}


def imagenet_tags(spec: Spec) -> set[str]:
    """The backbones that a run itself starts from ImageNet weights."""
    return {name for name, given in start_weights(spec).items() if given is None}


@dataclass(frozen=True, kw_only=True)
class KnownWeights:
    """Start weights in the site's folder, and the network that they are of."""

    weights: StartWeights
    backbone: str
    """The network by timm's name."""
    role: str
    """`cnn` or `transformer`."""


def known(name: str, folder: Path) -> KnownWeights:
    """The start weights of that name; `ValueError` with the command that brings them where they are not there."""
    path = description(name, folder)
    bring = f"python -m pipeline.prefetch {_flags(name)}"
    if not path.is_file():
        raise ValueError(f"there are no weights {name!r} in {folder}; bring them there: {bring}")
    with files.reading(path, f"run again: {bring}"):
        value = files.read_json(path, dict, keys=("name", "backbone", "role", "sha256", "licence", "mean", "std"))
        weights = StartWeights(
            name=str(value["name"]),
            sha256=str(value["sha256"]),
            licence=str(value["licence"]),
            mean=tuple(map(float, value["mean"])),
            std=tuple(map(float, value["std"])),
            input_size=value.get("input_size"),
            arguments=dict(value.get("arguments", {})),
        )
        return KnownWeights(weights=weights, backbone=str(value["backbone"]), role=str(value["role"]))


def description(name: str, folder: Path) -> Path:
    """The file that describes start weights: what they are, of which network, where they came from."""
    return folder / f"{_file_name(name)}.json"


@functools.cache
def known_networks() -> frozenset[str]:
    """The names of timm's networks, read from its source, since importing it takes seconds; empty without timm."""
    found = importlib.util.find_spec("timm")
    folders = (found.submodule_search_locations if found else None) or []
    sources = [path for folder in folders for path in (Path(folder) / "models").glob("*.py")]
    pattern = re.compile(r"^@register_model\s*\ndef (\w+)\(", re.M)
    return frozenset(name for path in sources for name in pattern.findall(path.read_text(encoding="utf-8")))


def check_network(tag: str) -> None:
    """`ValueError` with similar names where timm has no network of that name; its weights are another matter."""
    name, known = tag.split(".")[0], known_networks()
    if known and name not in known:
        similar = ", ".join(difflib.get_close_matches(name, known, n=5)) or "none; timm.list_models() lists all"
        raise ValueError(f"timm has no network {name!r}; similar names: {similar}")


def hub_name(name: str) -> str:
    """The hub's repository of `hf-hub:` weights or of a timm tag: each pretrained tag has one of its own name."""
    return name.removeprefix(HUB_PREFIX) if name.startswith(HUB_PREFIX) else f"timm/{name}"


def prefetched(tag: str, folder: Path) -> Path:
    """Where `pipeline.prefetch` stores the weights of a tag."""
    return folder / f"{_file_name(tag)}.safetensors"


def stored(sha256: str, folder: Path) -> Path:
    """Where `pipeline.prefetch` stores weights that are not a tag's."""
    return folder / f"{sha256}.safetensors"


def in_hub_cache(tag: str) -> Path | None:
    """The file in the cache of the hub, found by the layout of its folders; None if it is not there."""
    home = Path(os.environ.get("HF_HOME", "~/.cache/huggingface")).expanduser()
    cache = Path(os.environ.get("HF_HUB_CACHE", home / "hub")) / f"models--{hub_name(tag).replace('/', '--')}"
    reference = cache / "refs" / "main"
    if not reference.is_file():
        return None
    path = cache / "snapshots" / reference.read_text().strip() / HUB_FILE
    return path if path.is_file() else None


def weights_file(name: str, folder: Path, given: StartWeights | None = None) -> Path:
    """The file of ImageNet weights (a tag), or of given ones.

    `ValueError` with the command that fetches it if it is not on this machine.
    """
    if given is not None:
        for path in (stored(given.sha256, folder), prefetched(given.name, folder)):
            if path.is_file():
                return path
        raise ValueError(
            f"the weights {given.name} (SHA-256 {given.sha256[:12]}…) are not in {folder}; bring them there: "
            f"python -m pipeline.prefetch {_flags(given.name)}"
        )
    path = prefetched(name, folder)
    if path.is_file():
        return path
    cached = in_hub_cache(name)
    if cached is None:
        raise ValueError(
            f"the ImageNet weights of {name} are neither in {folder} nor in the hub's cache; "
            f"on a machine with a network run: python -m pipeline.prefetch --tags {name}"
        )
    return cached


def checked_sha256(name: str, folder: Path, given: StartWeights | None) -> str:
    """The SHA-256 of the file of a run's start weights; `ValueError` where it is not that of the given ones."""
    path = weights_file(name, folder, given)
    found = files.sha256_file(path)
    if given is not None and found != given.sha256:
        raise ValueError(
            f"{path} has SHA-256 {found[:12]}…, but this run's weights {name} have {given.sha256[:12]}…; delete it and "
            f"bring them again: python -m pipeline.prefetch {_flags(name)}"
        )
    return found


def _flags(name: str) -> str:
    """The flags of `pipeline.prefetch` that bring weights: a tag has a dot, a file of the user's own may have none."""
    return f"--weights {name}" if name.startswith(HUB_PREFIX) or "." in name else f"--file FILE --name {name}"


def _file_name(name: str) -> str:
    return re.sub(r"[^\w.+-]", "-", name.replace("/", "--"))
