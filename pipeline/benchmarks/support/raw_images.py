"""Raw images of realistic size for the benchmarks: real ones enlarged to ISIC's sizes, or drawn ones."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image

from pipeline.benchmarks.support.measure import Settings
from pipeline.core import files
from pipeline.data.shards.index import Shards, find_shards

SIZES = ((600, 450), (1024, 1024))
"""Width and height of the two kinds of files in ISIC 2019 (HAM10000 and BCN20000); half of the images have each."""
QUALITY = 95
CLASSES = ("one", "two")
QUICK_SCALE = 2  # `--quick` halves width and height


def raw_folder(settings: Settings, count: int) -> tuple[Path, str]:
    """A folder of `count` JPEG files of ISIC's sizes, with one folder per class, and a note on what they are."""
    sources = sorted((settings.raw / "isic2019").rglob("*.jpg")) if settings.raw else []
    kind = "real" if sources else "drawn"
    scale = QUICK_SCALE if settings.quick else 1
    sizes = [(width // scale, height // scale) for width, height in SIZES]
    folder = settings.scratch / f"raw-{kind}-{count}{'-quick' * settings.quick}"
    note = (
        f"{count} {'real dermoscopic' if sources else 'drawn'} images, enlarged "
        f"to {' and '.join(f'{width}×{height}' for width, height in sizes)}, JPEG {QUALITY}"
    )
    if not folder.exists():
        settings.say(f"making {note}")
        with files.publish_folder(folder) as out:
            for name in CLASSES:
                (out / name).mkdir()
            for number in range(count):
                image = Image.open(sources[number % len(sources)]).convert("RGB") if sources else _drawn(number)
                large = image.resize(sizes[number % 2], Image.Resampling.BICUBIC)
                large.save(out / CLASSES[number // 2 % 2] / f"{number:06d}.jpg", quality=QUALITY)
    return folder, note


def make_shards(out: Path, name: str, size: int, *flags: str | Path, split: str = "image") -> Shards:
    """Run `pipeline.shard` with these flags; returns the shards of size × size pixels that it writes below `out`.

    Images are stored as PNG where the encoder of JPEG is not installed.
    """
    command = [
        sys.executable,
        "-m",
        "pipeline.shard",
        name,
        "--size",
        str(size),
        "--out",
        out,
        "--split",
        split,
        *flags,
    ]
    if find_spec("simplejpeg") is None:
        command += ["--format", "png"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise ValueError(f"sharding {name} failed: {done.stderr.strip() or done.stdout.strip()}")
    shards = find_shards(out, name, size=size, split=split)
    assert shards is not None
    return shards


def _drawn(number: int) -> Image.Image:
    rng = np.random.default_rng(number)
    coarse = Image.fromarray(rng.integers(60, 220, (12, 12, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize((224, 224), Image.Resampling.BICUBIC), dtype=np.int16)
    return Image.fromarray(np.clip(smooth + rng.integers(-8, 9, smooth.shape), 0, 255).astype(np.uint8))
