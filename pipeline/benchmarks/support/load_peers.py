"""Loaders of other projects as peers, run by the interpreter that has them: LOADER SHARDS FILES SECONDS.

It prints images a second. It imports nothing of this project but the paper's transforms: the peers' environment does
not have this project's dependencies.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

BATCH = 16
LOADERS = {
    "webdataset-pil": 'webdataset, decode("pil") + torchvision',
    "webdataset-uint8": "webdataset, simplejpeg: uint8",
    "ffcv-raw": "ffcv, raw: uint8",
}


def throughput(batches: Callable[[], Iterable[Any]], seconds: float) -> float:
    """Images a second over epochs that take at least `seconds` together.

    One untimed epoch first fills caches and compiles. Each epoch is timed from its first batch on: its workers have
    started by then.
    """
    for _ in batches():
        pass
    spent, count = 0.0, 0
    while spent < seconds:
        epoch = iter(batches())
        next(epoch)
        started = time.perf_counter()
        count += sum(len(batch) for batch in epoch)
        spent += time.perf_counter() - started
    return count / spent


def webdataset(shards: Path, *, fast: bool) -> Callable[[], Iterable[Any]]:
    import simplejpeg
    import torch
    import webdataset as wds

    size = json.loads((shards / "manifest.json").read_text())["settings"]["size"]
    tars = [str(path) for path in sorted(shards.glob("train-*.tar"))]

    def decoded(sample: dict[str, Any]) -> Any:
        return torch.from_numpy(simplejpeg.decode_jpeg(sample["jpg"], "RGB"))

    def epoch() -> Iterable[Any]:
        source = wds.WebDataset(tars, shardshuffle=False, workersplitter=wds.split_by_worker, empty_check=False)
        if fast:
            images = source.shuffle(100).map(decoded)
        else:
            from pipeline.benchmarks.support.paper_loader import Files

            transform = Files([], size).transform
            images = source.shuffle(100).decode("pil").map(lambda sample: transform(sample["jpg"]))
        loader: Iterable[Any] = wds.WebLoader(images, batch_size=BATCH, num_workers=2)
        return loader

    return epoch


def ffcv(files: Path) -> Callable[[], Iterable[Any]]:
    import numpy as np
    from ffcv.fields import IntField, RGBImageField
    from ffcv.fields.decoders import SimpleRGBImageDecoder
    from ffcv.loader import Loader, OrderOption
    from ffcv.transforms import ToTensor
    from ffcv.writer import DatasetWriter
    from PIL import Image

    class Images:
        def __init__(self) -> None:
            self.paths = sorted(files.iterdir())

        def __len__(self) -> int:
            return len(self.paths)

        def __getitem__(self, number: int) -> tuple[Any, int]:
            return np.asarray(Image.open(self.paths[number])), 0

    path = files.parent / f"{files.name}.beton"
    if not path.exists():
        fields = {"image": RGBImageField(write_mode="raw"), "number": IntField()}
        DatasetWriter(str(path), fields, num_workers=1).from_indexed_dataset(Images())
    loader = Loader(
        str(path),
        batch_size=BATCH,
        num_workers=2,
        order=OrderOption.RANDOM,
        os_cache=True,
        pipelines={"image": [SimpleRGBImageDecoder(), ToTensor()], "number": None},
    )
    return lambda: (batch[0] for batch in loader)


if __name__ == "__main__":
    loader, shards, files, seconds = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), float(sys.argv[4])
    sys.path[0] = str(Path(__file__).parents[3])
    batches = ffcv(files) if loader == "ffcv-raw" else webdataset(shards, fast=loader == "webdataset-uint8")
    print(throughput(batches, seconds))
