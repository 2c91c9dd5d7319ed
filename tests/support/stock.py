"""The stock WebDataset reader, in a process of its own: it leaves its files open and warns.

python tests/stock.py TAR...
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any


def samples(tars: Iterable[Path]) -> dict[str, dict[str, Any]]:
    """Every sample the reader sees, by key: its labels, and how many bytes each of its files has."""
    command = [sys.executable, __file__, *map(str, sorted(tars))]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    found = dict(json.loads(line) for line in told)
    assert len(found) == len(told), "two samples have one key"
    return found


if __name__ == "__main__":
    import webdataset

    for sample in webdataset.WebDataset(sys.argv[1:], shardshuffle=False):
        sizes = {name: len(data) for name, data in sample.items() if not name.startswith("__")}
        print(json.dumps([sample["__key__"], {"labels": json.loads(sample["json"])["labels"], "sizes": sizes}]))
