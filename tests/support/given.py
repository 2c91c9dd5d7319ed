"""A small DINOv3 network of the user's own: a file of random weights with a normalisation that is nobody else's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

TAG = "vit_small_patch16_dinov3"  # which timm builds as Eva
ARGUMENTS: dict[str, Any] = {"depth": 2, "embed_dim": 32, "num_heads": 2, "init_values": 0.5}
MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.3, 0.25)
FLAGS = ("--backbone", TAG, "--licence", "CC-BY-4.0", "--mean", "0.4,0.5,0.6", "--std", "0.2,0.3,0.25", "--input-size")
FLAGS = (*FLAGS, "64", *(flag for name, value in ARGUMENTS.items() for flag in ("--argument", f"{name}={value}")))


def model(size: int, *, outputs: int = 7, tag: str = TAG, **changes: Any) -> Any:
    """The network as stock timm builds it, with weights drawn at random that are not close to any network's start."""
    import timm
    import torch

    torch.manual_seed(5)
    made = timm.create_model(tag, **{"img_size": size, "num_classes": outputs, **ARGUMENTS, **changes})
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return made.eval()


def save(path: Path, size: int) -> Any:
    """Write its weights to a safetensors file; returns the network."""
    from safetensors.torch import save_file

    made = model(size)
    save_file(made.state_dict(), path)
    return made
