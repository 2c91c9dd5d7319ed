"""Images: sharded, and read from shards as a torch Dataset or as a WebDataset."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.api.samples import choose
from pipeline.core import console
from pipeline.runs.cluster import load_cluster

if TYPE_CHECKING:
    from torch import Tensor
    from torch.utils.data import Dataset


def shard_images(
    name: str,
    raw: str | Path,
    *,
    size: int,
    layout: str | None = "folder",
    split: str = "image",
    format: str = "jpeg",
    cluster: str | Path = "local",
    workers: int | None = None,
    **options: Any,
) -> Path:
    """Write the images below `raw` to shards, once; returns their folder. The same files and settings: nothing is done.

    name: what grids call them. size: pixels on a side. layout: `folder` or `csv`; None: `name` is one of the known
    datasets. split: `image` or `grouped`. format: `jpeg`, `png` or `webp`. workers: processes; None: one a core. Other
    options are those of `python -m pipeline.shard` for own images, as `group_from=…`, `label_column=…`. In a script,
    call it below `if __name__ == "__main__":`, since worker processes import the script. Raises `ValueError` where
    the files cannot be read as one dataset, or more than 1 % of them are unusable.
    """
    from pipeline.data.datasets import find_dataset
    from pipeline.data.layouts.options import Options
    from pipeline.data.shards.plan import make_plan
    from pipeline.data.shards.transcode import ShardSettings
    from pipeline.data.shards.write import write_shards

    if unknown := sorted(set(options) - set(Options.__dataclass_fields__)):
        raise ValueError(f"there is no option {unknown[0]!r}; known: {', '.join(Options.__dataclass_fields__)}")
    count = len(os.sched_getaffinity(0)) if workers is None else workers
    dataset = find_dataset(name, layout, Options(**options))
    settings = ShardSettings(size=size, split=split, format=format, quality=None, keep_names=False)
    out = Path(load_cluster(str(cluster)).shards)
    plan = make_plan(dataset, Path(raw), settings, workers=count, progress=console.silent)
    folder = out / plan.folder_name
    if not (folder / "manifest.json").exists():
        write_shards(plan, out, workers=count, max_bad=0.01, strict=False, progress=console.silent)
    return folder


def torch_dataset(
    name: str | Path,
    split: str = "train",
    *,
    image_size: int | None = None,
    transform: Callable[[Tensor], Any] | None = None,
    unlabelled: bool = False,
    cluster: str | Path = "local",
) -> Dataset[tuple[Any, Any]]:
    """A split of shards as a map-style `torch.utils.data.Dataset` of pairs (image, target), for any `DataLoader`.

    name: of a dataset, or the folder of its shards. split: `train`, `val` or `test`. image_size: where there are
    shards of several sizes. image: float32 [3, size, size] in [0, 1]; with `transform`, what that makes of the uint8
    tensor [3, size, size]. target: a class number (int); where an image may have several classes float32 [classes] of
    0 and 1. unlabelled: images without a label too, with the target -1, or NaN. The attributes `classes` (names) and
    `keys` (of the images, in order) say what the numbers mean. Raises `ValueError` where there are no such shards; an
    item whose bytes are not those that were written raises one too.
    """
    from pipeline.api.torch_shards import TorchShards

    found = choose(name, split, image_size, unlabelled, cluster)
    return TorchShards(found, transform)


def web_dataset(
    name: str | Path,
    split: str = "train",
    *,
    image_size: int | None = None,
    shuffle: int = 0,
    unlabelled: bool = False,
    cluster: str | Path = "local",
) -> Any:
    """The same pairs as a `webdataset.WebDataset` that reads the tars of a split in order (extra `webdataset`).

    shuffle: mixes the images of a buffer of so many, and the tars; 0: none. image: float32 [3, size, size] in [0, 1].
    target: as of `torch_dataset`. Raises `ValueError` where the extra is missing, there are no such shards, or they are
    behind an address.
    """
    from pipeline.api.torch_shards import web_pipeline

    found = choose(name, split, image_size, unlabelled, cluster)
    return web_pipeline(found, shuffle)
