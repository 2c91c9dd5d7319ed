"""The index of a shard folder: one row a sample with the place of its bytes, and the manifest beside it.

`index.parquet` comes after the tars and `manifest.json` last: a folder with a manifest is complete.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pipeline import files
from pipeline.spec import DatasetRef

COLUMNS = ("key", "split", "labels", "group", "tar", "offset", "size", "sha256", "width", "height")


@dataclass(frozen=True)
class Shards:
    """A complete shard folder; the manifest says what it holds without opening the index."""

    folder: Path
    manifest: dict[str, Any]

    @property
    def name(self) -> str:
        return str(self.manifest["name"])

    @property
    def fingerprint(self) -> str:
        return str(self.manifest["fingerprint"])

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(self.manifest["classes"])

    @property
    def size(self) -> int:
        """Side of the stored pictures in pixels."""
        return int(self.manifest["settings"]["size"])

    @cached_property
    def rows(self) -> dict[str, list[Any]]:
        """The index as columns; `labels` are lists of class names, None for pictures without labels."""
        import pyarrow.parquet as parquet

        table: dict[str, list[Any]] = parquet.read_table(self.folder / "index.parquet").to_pydict()
        return table

    def of_split(self, split: str) -> list[int]:
        """The row numbers of a split, in the order of the index."""
        return [row for row, part in enumerate(self.rows["split"]) if part == split]

    def labels(self, rows: Sequence[int]) -> list[tuple[str, ...] | None]:
        column = self.rows["labels"]
        return [None if column[row] is None else tuple(column[row]) for row in rows]


def write_index(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Publish the rows as Parquet; the same rows give the same bytes."""
    import pyarrow as pa
    import pyarrow.parquet as parquet

    text = pa.dictionary(pa.int32(), pa.string())
    schema = pa.schema(
        [
            ("key", pa.string()),
            ("split", text),
            ("labels", pa.list_(pa.string())),
            ("group", pa.string()),
            ("tar", text),
            ("offset", pa.int64()),
            ("size", pa.int64()),
            ("sha256", pa.string()),
            ("width", pa.int32()),
            ("height", pa.int32()),
        ]
    )
    assert tuple(schema.names) == COLUMNS
    table = pa.Table.from_pylist(list(rows), schema=schema)
    with files.publish(path) as file:
        parquet.write_table(table, file, compression="zstd")


def open_shards(folder: Path) -> Shards:
    """The complete shard folder at `folder`; `ValueError` when its manifest is missing."""
    manifest = folder / "manifest.json"
    if not manifest.exists():
        raise ValueError(f"{folder} holds no finished shards; run python -m pipeline.shard again to finish them")
    return Shards(folder, files.read_json(manifest))


def find_shards(root: Path, name: str, *, size: int, split: str) -> Shards | None:
    """The shards of a dataset at a picture size and split mode; the newest, where contents differ."""
    found = sorted(
        root.glob(f"{name}-{size}-{split}-*/manifest.json"),
        key=lambda path: (path.stat().st_mtime, path),
        reverse=True,
    )
    return open_shards(found[0].parent) if found else None


def shards_of(root: Path, ref: DatasetRef, *, size: int) -> Shards:
    """The shards a Spec names; `ValueError` when they are gone or hold pictures of another size."""
    for path in sorted(root.glob(f"{ref.name}-*/manifest.json")):
        shards = open_shards(path.parent)
        if shards.fingerprint != ref.fingerprint:
            continue
        if shards.size != size:
            raise ValueError(
                f"the spec wants pictures of {size} pixels, the shards of {ref.name} hold {shards.size}; shard them at "
                f"{size}, or give the grid IMAGE_SIZE = {shards.size}"
            )
        return shards
    raise ValueError(
        f"no shards of {ref.name} with fingerprint {ref.fingerprint} under {root}; shard the same files again"
    )
