"""A small folder of drawn images, and its shards, for the tests of sharding."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as parquet
import pytest
from messy import CLASSES, encoded, image_of

from pipeline.core.console import silent
from pipeline.data.layouts import UserDataset
from pipeline.data.records import Dataset
from pipeline.data.shards import duplicates, raw, write
from pipeline.data.shards import plan as planning
from pipeline.data.shards.index import Shards
from pipeline.data.shards.plan import ShardPlan, make_plan
from pipeline.data.shards.transcode import ShardSettings

SETTINGS = ShardSettings(size=16, split="image", format="jpeg", quality=None, keep_names=False)


class Inline:
    """Workers without processes, for tests of other things."""

    def __init__(self, count: int, *, threads: bool = False) -> None:
        pass

    def __enter__(self) -> Inline:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def map(self, function: Callable[[Any], Any], items: Iterable[Any], **_: object) -> Iterator[Any]:
        return map(function, items)


def work_inline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plan and write in this process alone."""
    monkeypatch.setattr(raw, "Workers", Inline)
    monkeypatch.setattr(write, "Workers", Inline)
    monkeypatch.setattr(duplicates, "Workers", Inline)


def make_small_tars(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten images a tar."""
    monkeypatch.setattr(planning, "TAR_IMAGES", 10)


def draw(root: Path, count: int = 60) -> Path:
    """A folder layout: three classes of `count` / 3 images, and 6 without a label."""
    rng = np.random.default_rng(0)
    for number in range(count + 6):
        label = CLASSES[number % 3]
        path = root / (label if number < count else "unlabelled") / f"{number:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(image_of(label, rng), "PNG"))
    return root


def plan_of(
    raw: Path,
    *,
    settings: ShardSettings = SETTINGS,
    dataset: Dataset | None = None,
    workers: int = 1,
    keep_leaks: bool = False,
) -> ShardPlan:
    own = dataset or UserDataset("mine", "folder")
    return make_plan(own, raw, settings, workers=workers, progress=silent, keep_leaks=keep_leaks)


def written(plan: ShardPlan, out: Path, *, workers: int = 1, max_bad: float = 0.01, strict: bool = False) -> Shards:
    return write.write_shards(plan, out, workers=workers, max_bad=max_bad, strict=strict, progress=silent)


def rows_of(shards: Shards) -> list[dict[str, Any]]:
    """The rows of the index."""
    rows: list[dict[str, Any]] = parquet.read_table(shards.folder / "index.parquet").to_pylist()
    return rows


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}
