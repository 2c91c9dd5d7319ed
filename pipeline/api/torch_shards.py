"""Shards as torch and WebDataset read them."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import torch
from torch.utils.data import Dataset

from pipeline.api.samples import Samples
from pipeline.data import images
from pipeline.data.shards.read import TarReader
from pipeline.data.shards.remote import address_of


class TorchShards(Dataset[tuple[Any, Any]]):
    """The pairs of `api.torch_dataset`."""

    def __init__(self, samples: Samples, transform: Callable[[Any], Any] | None) -> None:
        self.classes = samples.shards.classes
        self.keys: list[str] = [samples.shards.rows["key"][row] for row in samples.rows]
        self._samples, self._transform = samples, transform
        self._opened: tuple[int, TarReader] | None = None

    def __len__(self) -> int:
        return len(self.keys)

    def __getstate__(self) -> dict[str, Any]:
        """For a worker that is not forked: it opens the tars itself."""
        return {**self.__dict__, "_opened": None}

    @property
    def _reader(self) -> TarReader:
        """This process's own: the threads and connections of another do not work in a forked one."""
        if self._opened is None or self._opened[0] != os.getpid():
            self._opened = os.getpid(), TarReader(self._samples.shards)
        return self._opened[1]

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
    if address := address_of(shards):
        raise ValueError(
            f"the tars of {shards.name} are at {address}, and web_dataset reads those of a folder; use torch_dataset, "
            "or copy the whole folder of shards and give its path"
        )
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
