"""Which ImageNet weights a run starts from, where they are on this machine, and how they get there.

Prefetched safetensors come first, then the cache of the hub. Only `fetch` uses the network. Nothing imports torch.
"""

from __future__ import annotations

import os
from pathlib import Path

from pipeline.core import files
from pipeline.runs.spec import PretrainSpec, Spec

HUB_FILE = "model.safetensors"


def imagenet_tags(spec: Spec) -> set[str]:
    """The backbones that a run itself starts from ImageNet weights; a fine-tune of a pretrained arm has none."""
    if isinstance(spec, PretrainSpec):
        return {arm.backbone for arm in spec.arms if arm.weights == "imagenet"}
    return {spec.backbone} if spec.pretrain is None and spec.weights == "imagenet" else set()


def hub_name(tag: str) -> str:
    """The hub repository of a timm tag: each pretrained tag has one of its own name."""
    return f"timm/{tag}"


def prefetched(tag: str, folder: Path) -> Path:
    """Where `pipeline.prefetch` stores the weights of a tag."""
    return folder / f"{tag}.safetensors"


def in_hub_cache(tag: str) -> Path | None:
    """The file in the cache of the hub, found by the layout of its folders; None if it is not there."""
    home = Path(os.environ.get("HF_HOME", "~/.cache/huggingface")).expanduser()
    cache = Path(os.environ.get("HF_HUB_CACHE", home / "hub")) / f"models--{hub_name(tag).replace('/', '--')}"
    reference = cache / "refs" / "main"
    if not reference.is_file():
        return None
    path = cache / "snapshots" / reference.read_text().strip() / HUB_FILE
    return path if path.is_file() else None


def weights_file(tag: str, folder: Path) -> Path:
    """The weights file of a tag; `ValueError` with the command that fetches it if it is not on this machine."""
    path = prefetched(tag, folder)
    if path.is_file():
        return path
    cached = in_hub_cache(tag)
    if cached is None:
        raise ValueError(
            f"the ImageNet weights of {tag} are neither in {folder} nor in the hub's cache; "
            f"on a machine with a network run: python -m pipeline.prefetch --tags {tag}"
        )
    return cached


def fetch(tag: str, folder: Path) -> str:
    """Download one backbone's weights into `folder` and return their SHA-256; `ValueError` if that fails."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError

    try:
        cached = Path(hf_hub_download(hub_name(tag), HUB_FILE))
    except (HfHubHTTPError, OSError) as error:
        raise ValueError(
            f"{hub_name(tag)} could not be fetched ({type(error).__name__}); run this where there is a network, or set "
            "HF_ENDPOINT to a mirror"
        ) from error
    with open(cached, "rb") as source, files.publish(prefetched(tag, folder)) as target:
        while block := source.read(1 << 20):
            target.write(block)
    checksum = files.sha256_file(prefetched(tag, folder))
    files.write_json(prefetched(tag, folder).with_suffix(".json"), {"tag": tag, "sha256": checksum})
    return checksum
