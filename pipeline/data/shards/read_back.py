"""Read tars back with the stock reader of the library webdataset, as others will, and compare with the index.

The reader runs as a program of its own, which prints a line for each sample: it warns, leaves files open and would
import torch, of which reading needs nothing.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any


def read_back(folder: Path, tars: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> str | None:
    """The library and its version that read every sample of `tars` as `rows` of the index say, and no other.

    None where it is not installed. Raises `ValueError` that names what differs.
    """
    if importlib.util.find_spec("webdataset") is None:
        return None
    from importlib.metadata import version

    chosen = set(tars)
    left = {row["key"]: (row["sha256"], row["labels"]) for row in rows if row["tar"] in chosen}
    for key, checksums, labels in _samples(folder, tars):
        known = left.pop(key, None)
        if known is None:
            raise ValueError(f"{folder}: webdataset reads a sample {key!r} that is not in the index; shard again")
        if known != (checksums, list(labels) if labels is not None else None):
            raise ValueError(f"{folder}: webdataset does not read {key} as it was written; shard again")
    if left:
        raise ValueError(
            f"{folder}: webdataset does not find {len(left)} samples, {next(iter(left))} first; shard again"
        )
    return f"webdataset {version('webdataset')}"


def _samples(folder: Path, tars: Sequence[str]) -> Iterator[tuple[str, str, list[str] | None]]:
    """The key, the SHA-256 of the image and the labels of each sample."""
    command = [sys.executable, __file__, *(str(folder / tar) for tar in tars)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as reader:
        assert reader.stdout is not None and reader.stderr is not None
        try:
            for line in reader.stdout:
                yield tuple(json.loads(line))
            said = reader.stderr.read().strip()
        finally:
            reader.kill()
    if reader.returncode:
        raise ValueError(
            f"{folder}: webdataset cannot read its tars: {said.splitlines()[-1] if said else 'it was killed'}"
        )


def _print_samples(paths: Sequence[str]) -> None:
    sys.modules["torch"] = None  # type: ignore[assignment]  # importing it takes seconds
    from webdataset.tariterators import group_by_keys, tar_file_expander

    def streams() -> Iterator[dict[str, Any]]:
        for path in paths:
            with open(path, "rb") as file:
                yield {"url": path, "stream": file}

    for sample in group_by_keys(tar_file_expander(streams())):
        (image,) = [data for name, data in sample.items() if not name.startswith("__") and name != "json"]
        print(json.dumps([sample["__key__"], hashlib.sha256(image).hexdigest(), json.loads(sample["json"])["labels"]]))


if __name__ == "__main__":
    _print_samples(sys.argv[1:])
