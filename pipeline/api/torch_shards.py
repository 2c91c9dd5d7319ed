"""Shards as torch and WebDataset read them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils.data import Dataset

from pipeline.api.samples import Samples
from pipeline.data import images
from pipeline.data.shards.read import TarReader


class TorchShards(Dataset[tuple[Any, Any]]):
    """The pairs of `api.torch_dataset`."""

    def __init__(self, samples: Samples, transform: Callable[[Any], Any] | None) -> None:
        self.classes = samples.shards.classes
        self.keys: list[str] = [samples.shards.rows["key"][row] for row in samples.rows]
        self._samples, self._transform = samples, transform
        self._reader = TarReader(samples.shards)

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        pixels = torch.from_numpy(self._reader.image(self._samples.rows[index])).permute(2, 0, 1)
        image = pixels.float() / 255 if self._transform is None else self._transform(pixels)
        target = self._samples.targets[index]
        return image, int(target) if self._samples.single else torch.from_numpy(target.copy())


def web_pipeline(samples: Samples, shuffle: int) -> Any:
    """The pairs of `api.web_dataset`."""
    try:
        import webdataset
    except ImportError as error:
        raise ValueError(
            f'web_dataset needs the extra webdataset: pip install "cass-pipeline[webdataset]" ({error})'
        ) from error
    rows, shards = samples.shards.rows, samples.shards
    targets = {rows["key"][row]: target for row, target in zip(samples.rows, samples.targets, strict=True)}
    tars = [str(shards.folder / name) for name in dict.fromkeys(rows["tar"][row] for row in samples.rows)]
    extension = images.FORMATS[str(shards.manifest["settings"].get("format", "jpeg"))]

    def pair(sample: dict[str, Any]) -> tuple[Any, Any]:
        image = torch.from_numpy(images.decode_stored(sample[extension]).copy()).permute(2, 0, 1).float() / 255
        target = targets[sample["__key__"]]
        return image, int(target) if samples.single else torch.from_numpy(target.copy())

    out = webdataset.WebDataset(tars, shardshuffle=len(tars) if shuffle else False, empty_check=bool(tars))
    out = out.select(lambda sample: sample["__key__"] in targets)
    return (out.shuffle(shuffle) if shuffle else out).map(pair)
