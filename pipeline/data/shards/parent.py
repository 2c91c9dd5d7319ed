"""Shards that are extended: their rows, and which raw files those are of.

`sources.parquet` in a shard folder says of which raw file each image is, by its SHA-256, and what is black and white
in its series where percentiles of that are its window. Shards of earlier code have none.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from pipeline.core import files, seals
from pipeline.data.shards.index import MOVE, Shards
from pipeline.data.splits import SPLIT_SEED

SOURCES = "sources.parquet"


class Origin(NamedTuple):
    """What is known of an image's raw file."""

    checksum: str
    """SHA-256."""
    ends: tuple[float, float] | None = None
    """The values of black and white, where percentiles of its series are its window."""
    series: str | None = None
    """Then the hash of the series with the user's key, where there is one."""


@dataclass(frozen=True, kw_only=True)
class Parent:
    """Shards that another folder extends. It is of those that nobody extended, its base, and of what was added."""

    folder: Path
    manifest: dict[str, Any]
    rows: list[dict[str, Any]]
    """Of its index."""
    origins: Mapping[str, Origin]
    """Of its images, by key."""
    matched: int
    """How many of its raw files are in the raw folder of what is added."""

    @property
    def fingerprint(self) -> str:
        return str(self.manifest["fingerprint"])

    @property
    def checksums(self) -> dict[str, str]:
        """SHA-256 of the raw files, by key."""
        return {key: origin.checksum for key, origin in self.origins.items()}

    @property
    def base(self) -> str:
        """The base's fingerprint."""
        return str(self.manifest.get("extends", {}).get("base", self.fingerprint))

    @property
    def base_images(self) -> int:
        """How many of the rows, the first ones, are the base's."""
        return int(self.manifest.get("extends", {}).get("base_images", len(self.rows)))

    def tars_of(self, split: str) -> int:
        """The number from which tars of a split are free."""
        taken = {row["tar"] for row in self.rows if row["tar"].startswith(f"{split}-")}
        return 1 + max((int(tar.partition("-")[2].removesuffix(".tar")) for tar in taken), default=-1)

    def in_order(self, new: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """All rows: the base's as they are, then what was ever added, in an order that no other row changes."""
        added = [*self.rows[self.base_images :], *new]
        return [*self.rows[: self.base_images], *sorted(added, key=_place)]

    def to_json(self) -> dict[str, Any]:
        """What manifests say under `extends`."""
        return {
            "parent": self.fingerprint,
            "images": len(self.rows),
            "base": self.base,
            "base_images": self.base_images,
        }


def _place(row: Mapping[str, Any]) -> str:
    return hashlib.sha256(f"shard order {SPLIT_SEED} {row['key']}".encode()).hexdigest()


def parent_of(shards: Shards, origins: Mapping[str, Origin], *, matched: int) -> Parent:
    """The shards as a parent; `origins` are those of its images, by key."""
    return Parent(
        folder=shards.folder.absolute(),
        manifest=shards.manifest,
        rows=rows_of(shards),
        origins=origins,
        matched=matched,
    )


def rows_of(shards: Shards) -> list[dict[str, Any]]:
    """All rows of the index, as `write_index` takes them."""
    columns = {name: column.array.to_pylist() for name, column in shards.rows.items()}
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def write_sources(path: Path, origins: Mapping[str, Origin]) -> None:
    """Publish origins by key; the same ones in the same order give the same bytes."""
    import pyarrow as pa
    import pyarrow.parquet as parquet

    from pipeline.data.shards import arrow

    every = list(origins.values())
    columns: dict[str, list[str | None]] = {"key": list(origins), "sha256": [origin.checksum for origin in every]}
    if any(origin.ends for origin in every):
        columns["ends"] = [json.dumps(origin.ends) if origin.ends else None for origin in every]
        columns["series"] = [origin.series for origin in every]
    arrays = [arrow.strings(values) for values in columns.values()]
    with files.publish(path) as file:
        parquet.write_table(pa.Table.from_arrays(arrays, names=list(columns)), file, compression="zstd")


def read_sources(shards: Shards) -> dict[str, Origin] | None:
    """The origins by key; None for shards of earlier code. `Damaged` if it is not what was written."""
    import pyarrow.parquet as parquet

    path = shards.folder / SOURCES
    if not path.exists() and SOURCES not in seals.seals_of(shards.manifest).get(seals.FILES, {}):
        return None
    try:
        seals.checked_sha256(path, shards.manifest)
    except seals.Damaged as error:
        raise seals.Damaged(f"{error}; {MOVE}") from None
    with parquet.ParquetFile(path) as file:
        table = file.read(use_threads=False)
    return {
        row["key"]: Origin(row["sha256"], tuple(json.loads(row.get("ends") or "[]")) or None, row.get("series"))
        for row in table.to_pylist()
    }
