"""Read tars with the stock WebDataset reader, in a process of its own because it warns and leaves files open.

python tests/support/stock_reader.py TAR...
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any


def samples(tars: Iterable[Path]) -> dict[str, dict[str, Any]]:
    """The labels of every sample that the reader yields and the sizes of its files in bytes, by key."""
    command = [sys.executable, __file__, *map(str, sorted(tars))]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    by_key = dict(json.loads(line) for line in lines)
    assert len(by_key) == len(lines), "two samples have one key"
    return by_key


if __name__ == "__main__":
    import webdataset

    for sample in webdataset.WebDataset(sys.argv[1:], shardshuffle=False):
        sizes = {name: len(data) for name, data in sample.items() if not name.startswith("__")}
        print(json.dumps([sample["__key__"], {"labels": json.loads(sample["json"])["labels"], "sizes": sizes}]))
