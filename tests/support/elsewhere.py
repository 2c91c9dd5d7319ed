"""A dataset, and a second one that holds copies of its training images, saved again in other sizes."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import tiny
from PIL import Image, ImageOps

from pipeline.data.layouts import UserDataset
from pipeline.data.shards.index import Shards
from pipeline.data.shards.plan import make_plan
from pipeline.data.shards.transcode import ShardSettings

PLANTED = 50


def patches(count: int, seed: int) -> list[Image.Image]:
    """Images with detail: random patches of several sizes."""
    rng = np.random.default_rng(seed)
    out = np.zeros((count, 64, 64))
    for cells in (4, 8, 16, 32):
        out += np.kron(rng.uniform(0, 60, (count, cells, cells)), np.ones((64 // cells, 64 // cells)))
    return [Image.fromarray(grey).convert("RGB") for grey in out.clip(0, 255).astype(np.uint8)]


def save(raw: Path, label: str, name: str, image: Image.Image, kind: str = "PNG") -> None:
    out = io.BytesIO()
    image.save(out, kind, quality=85)
    (raw / label).mkdir(parents=True, exist_ok=True)
    (raw / label / f"{name}.{kind.lower()}").write_bytes(out.getvalue())


def first_shards(folder: Path) -> Shards:
    """Half of 240 images of the classes `cross` and `disc`, and some without a label."""
    raw = folder / "raw-first"
    for number, image in enumerate(patches(240, 1)[::2]):
        save(raw, ("cross", "disc", "unlabelled")[number % 3 if number < 15 else number % 2], f"{number}", image)
    return tiny.shard(UserDataset("first", "folder"), raw, folder / "shards")


def second_shards(folder: Path, first: Shards) -> tuple[Shards, set[str]]:
    """The other half, with PLANTED training images of the first; also the keys of those copies.

    Its classes are `cross`, `ring` and `star`.
    """
    raw, out = folder / "raw-second", folder / "shards"
    for number, image in enumerate(patches(240, 1)[1::2]):
        save(raw, ("cross", "ring", "star", "unlabelled")[number % 4], f"{number}", image)
    settings = ShardSettings(size=tiny.SIZE, split="image", format="png", quality=None, keep_names=False)
    plan = make_plan(UserDataset("first", "folder"), folder / "raw-first", settings, workers=1, progress=tiny.quiet)
    assert plan.fingerprint == first.fingerprint
    trained = [sample.record.path for sample in plan.samples if sample.split == "train"][:PLANTED]
    for number, path in enumerate(trained):
        with Image.open(path) as image:
            other = image.resize((64 + number, 56))
        save(raw, "ring", f"copy-{number}", ImageOps.mirror(other) if number % 5 == 0 else other, "JPEG")
    shards = tiny.shard(UserDataset("second", "folder"), raw, out)
    plan = make_plan(UserDataset("second", "folder"), raw, settings, workers=1, progress=tiny.quiet)
    return shards, {sample.key for sample in plan.samples if sample.record.path.name.startswith("copy-")}
