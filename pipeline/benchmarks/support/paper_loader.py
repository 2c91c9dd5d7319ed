"""The paper's loader as a peer: raw files, Pillow and torchvision on float32 tensors, two worker processes.

Its transforms are those of `pipeline/study/paper.py` in torchvision's own classes (E.2.2; fidelity 3a, 9–13).
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from pipeline.study.paper import AUGMENT


class Files(Dataset[Tensor]):
    """Image files; reading one opens, augments and normalises it: float32 [3, size, size]."""

    def __init__(self, paths: list[Path], size: int) -> None:
        self.paths = paths
        self.transform = _transform(size)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, number: int) -> Tensor:
        image: Tensor = self.transform(Image.open(self.paths[number]).convert("RGB"))
        return image


def batches(folder: Path, *, size: int, batch: int, workers: int = 2) -> Iterable[Tensor]:
    """Augmented batches float32 [batch, 3, size, size] of the JPEG files below `folder`, in a random order."""
    paths = sorted(folder.rglob("*.jpg"))
    return DataLoader(Files(paths, size), batch_size=batch, shuffle=True, num_workers=workers, drop_last=True)


def _transform(size: int) -> Any:
    last = [transforms.ToTensor(), transforms.Normalize(AUGMENT.mean, AUGMENT.std)]
    return transforms.Compose([transforms.Resize((size, size)), *augmentation(transforms), *last])


def augmentation(kind: Any) -> list[Any]:
    """The paper's augmentation of `torchvision.transforms` or of its `v2`."""
    first, second = AUGMENT.first_jitter, AUGMENT.second_jitter
    return [
        kind.RandomApply(
            [
                kind.ColorJitter(first.brightness, first.contrast, first.saturation, first.hue),
                kind.RandomPerspective(AUGMENT.perspective, AUGMENT.perspective_p),
            ],
            first.p,
        ),
        kind.RandomApply(
            [
                kind.ColorJitter(second.brightness, second.contrast, second.saturation, second.hue),
                kind.RandomAffine(AUGMENT.degrees),
            ],
            second.p,
        ),
        kind.RandomVerticalFlip(AUGMENT.vertical_flip),
        kind.RandomHorizontalFlip(AUGMENT.horizontal_flip),
    ]
