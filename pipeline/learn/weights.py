"""Where a backbone's ImageNet weights lie on this machine: prefetched safetensors first, then the hub's cache."""

from __future__ import annotations

import os
from pathlib import Path

HUB_FILE = "model.safetensors"


def hub_name(tag: str) -> str:
    """timm keeps every pretrained tag in a hub repository of its own name."""
    return f"timm/{tag}"


def prefetched(tag: str, folder: Path) -> Path:
    return folder / f"{tag}.safetensors"


def in_hub_cache(tag: str) -> Path | None:
    """The file in the hub's cache, found by its folder layout, or None."""
    home = Path(os.environ.get("HF_HOME", "~/.cache/huggingface")).expanduser()
    cache = Path(os.environ.get("HF_HUB_CACHE", home / "hub")) / f"models--{hub_name(tag).replace('/', '--')}"
    reference = cache / "refs" / "main"
    if not reference.is_file():
        return None
    path = cache / "snapshots" / reference.read_text().strip() / HUB_FILE
    return path if path.is_file() else None


def weights_file(tag: str, folder: Path) -> Path:
    """The weights file of a tag; `ValueError` saying how to fetch it when it is not here."""
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
