"""Shards of seven random images, for tests of reading."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pipeline.core import files
from pipeline.data import images
from pipeline.data.shards.index import Shards, write_index
from pipeline.data.shards.tar import TarWriter

SIZE = 12
IMAGES = np.random.default_rng(0).integers(0, 256, (7, SIZE, SIZE, 3), dtype=np.uint8)


def make_shards(root: Path) -> Shards:
    """Shards of IMAGES below `root`, lossless, in two tars."""
    folder = root / "shards" / "mine-12-image-0123abcd"
    folder.mkdir(parents=True)
    rows = []
    for tar, numbers in (("train-000000.tar", range(4)), ("val-000000.tar", range(4, 7))):
        with open(folder / tar, "wb") as file:
            writer = TarWriter(file)
            for number in numbers:
                data = images.encode(IMAGES[number], format="png", quality=None)
                offset = writer.add(f"p{number}.png", data)
                writer.add(f"p{number}.json", b"{}")
                row = {"key": f"p{number}", "split": tar.split("-")[0], "labels": None, "group": None, "tar": tar}
                row |= {"offset": offset, "size": len(data), "sha256": files.sha256_bytes(data)}
                rows.append({**row, "width": SIZE, "height": SIZE})
            writer.close()
    write_index(folder / "index.parquet", rows)
    return Shards(folder, {"name": "mine", "settings": {"size": SIZE}, "fingerprint": "0123abcd" * 2, "classes": []})
