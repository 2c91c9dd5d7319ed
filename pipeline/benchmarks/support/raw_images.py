"""Raw images of true size for benchmarks: real ones enlarged to ISIC's sizes, or drawn ones where there are none."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from pipeline.benchmarks.support.base import Bench
from pipeline.core import files
from pipeline.data.shards.index import Shards, find_shards

SIZES = ((600, 450), (1024, 1024))
"""Width and height of the two kinds of ISIC 2019's files (HAM10000 and BCN20000), half and half."""
QUALITY = 95
CLASSES = ("one", "two")


def raw_folder(bench: Bench, count: int) -> tuple[Path, str]:
    """A folder of `count` JPEG files of ISIC's true sizes, in a folder a class, and a note on what they are."""
    sources = sorted((bench.raw / "isic2019").rglob("*.jpg")) if bench.raw else []
    kind = "real" if sources else "drawn"
    folder = bench.scratch / f"raw-{kind}-{count}"
    note = (
        f"{count} {'real dermoscopic images, enlarged' if sources else 'drawn images'} "
        f"to {' and '.join(f'{w}×{h}' for w, h in SIZES)}, JPEG {QUALITY}"
    )
    if not folder.exists():
        bench.say(f"making {note}")
        with files.publish_folder(folder) as out:
            for name in CLASSES:
                (out / name).mkdir()
            for number in range(count):
                image = Image.open(sources[number % len(sources)]).convert("RGB") if sources else _drawn(number)
                large = image.resize(SIZES[number % 2], Image.Resampling.BICUBIC)
                large.save(out / CLASSES[number // 2 % 2] / f"{number:06d}.jpg", quality=QUALITY)
    return folder, note


def sharded(out: Path, name: str, size: int, *flags: str | Path) -> Shards:
    """Shards of a dataset at size × size pixels below `out`, by the command with these flags."""
    command = [sys.executable, "-m", "pipeline.shard", name, "--size", str(size), "--out", out, *flags]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise ValueError(f"sharding {name} failed: {done.stderr.strip() or done.stdout.strip()}")
    shards = find_shards(out, name, size=size, split="image")
    assert shards is not None
    return shards


def _drawn(number: int) -> Image.Image:
    rng = np.random.default_rng(number)
    coarse = Image.fromarray(rng.integers(60, 220, (12, 12, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize((224, 224), Image.Resampling.BICUBIC), dtype=np.int16)
    return Image.fromarray(np.clip(smooth + rng.integers(-8, 9, smooth.shape), 0, 255).astype(np.uint8))
