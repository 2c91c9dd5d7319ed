"""Find, open and index shard folders. The index has one row a sample, with the position of its bytes in a tar.

`index.parquet` is written after the tars and `manifest.json` last: a folder with a manifest is complete.
"""

from __future__ import annotations

import glob
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pipeline.core import files, seals
from pipeline.runs.spec import DatasetRef

COLUMNS = ("key", "split", "labels", "group", "tar", "offset", "size", "sha256", "width", "height")
MOVE = "copy the shards again, or delete the folder and shard again"
ROW_GROUP = 1 << 16  # rows; not more are in memory while the index is written


@dataclass(frozen=True)
class Shards:
    """A complete shard folder. The manifest describes it; the index is opened when its rows are first used."""

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
        """The side of the stored images in pixels."""
        return int(self.manifest["settings"]["size"])

    @cached_property
    def index_checksum(self) -> str:
        """The SHA-256 of the index, which covers every image; `Damaged` where the manifest names another."""
        try:
            return seals.checked_sha256(self.folder / "index.parquet", self.manifest)
        except seals.Damaged as error:
            raise seals.Damaged(f"{error}; {MOVE}") from None

    @cached_property
    def rows(self) -> Columns:
        """The index by column; `labels` holds lists of class names, None for images without labels."""
        assert self.index_checksum  # no row of a damaged index is used
        return Columns(self.folder / "index.parquet")

    def of_split(self, split: str) -> list[int]:
        """The row numbers of a split, in the order of the index."""
        import numpy as np

        column = self.rows["split"].array
        is_split = np.array([name == split for name in column.dictionary.to_pylist()])
        rows: list[int] = np.flatnonzero(is_split[np.from_dlpack(column.indices)]).tolist()
        return rows

    def groups(self) -> dict[str, str]:
        """The patients or lesions of the images that have one, by key."""
        pairs = zip(self.rows["key"].array.to_pylist(), self.rows["group"].array.to_pylist(), strict=True)
        return {key: group for key, group in pairs if group is not None}

    def labels(self, rows: Sequence[int]) -> list[tuple[str, ...] | None]:
        """The class names of some rows, None for images without labels. Equal labels share one tuple."""
        import numpy as np

        column = self.rows["labels"].array
        flat = column.values.dictionary_encode()
        parts = (flat.indices, column.offsets, column.is_valid().cast("uint8"))
        codes, ends, labelled = (np.from_dlpack(part) for part in parts)  # to_numpy would import pandas
        chosen = np.asarray(rows, dtype=np.int64)
        names = flat.dictionary.to_pylist()
        known: dict[bytes, tuple[str, ...]] = {}
        out: list[tuple[str, ...] | None] = []
        for start, end, is_labelled in zip(ends[chosen], ends[chosen + 1], labelled[chosen], strict=True):
            key = codes[start:end].tobytes()
            if is_labelled and key not in known:
                known[key] = tuple(names[code] for code in codes[start:end])
            out.append(known[key] if is_labelled else None)
        return out


class Columns(Mapping[str, "Column"]):
    """The columns of an index file; each is read when it is first used."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.read: dict[str, Column] = {}

    def __getitem__(self, name: str) -> Column:
        if name not in self.read:
            import pyarrow.parquet as parquet

            with parquet.ParquetFile(self.path) as file:
                table = file.read([name], use_threads=False).unify_dictionaries()
            self.read[name] = Column(table[name])
        return self.read[name]

    def __iter__(self) -> Iterator[str]:
        return iter(COLUMNS)

    def __len__(self) -> int:
        return len(COLUMNS)


class Column(Sequence[Any]):
    """A column of an index; `column[row]` is a plain Python value."""

    def __init__(self, chunks: Any) -> None:
        self.chunks = chunks

    @property
    def array(self) -> Any:
        """The column as one Arrow array."""
        return self.chunks.combine_chunks()

    def __getitem__(self, row: Any) -> Any:
        return self.chunks[int(row)].as_py()

    def __len__(self) -> int:
        return len(self.chunks)


def write_index(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Publish rows with the columns COLUMNS as Parquet; the same rows give the same bytes."""
    import pyarrow as pa
    import pyarrow.parquet as parquet

    from pipeline.data.shards import arrow

    text = pa.dictionary(pa.int32(), pa.string())
    makers: dict[str, tuple[Any, Callable[[list[Any]], Any]]] = {
        "key": (pa.string(), arrow.strings),
        "split": (text, lambda values: arrow.strings(values).dictionary_encode()),
        "labels": (pa.list_(pa.string()), arrow.lists),
        "group": (pa.string(), arrow.strings),
        "tar": (text, lambda values: arrow.strings(values).dictionary_encode()),
        "offset": (pa.int64(), lambda values: arrow.integers(values, "int64")),
        "size": (pa.int64(), lambda values: arrow.integers(values, "int64")),
        "sha256": (pa.string(), arrow.strings),
        "width": (pa.int32(), lambda values: arrow.integers(values, "int32")),
        "height": (pa.int32(), lambda values: arrow.integers(values, "int32")),
    }
    assert tuple(makers) == COLUMNS
    schema = pa.schema([(name, kind) for name, (kind, _) in makers.items()])
    rest = iter(rows)
    blocks = iter(lambda: list(itertools.islice(rest, ROW_GROUP)), [])
    with files.publish(path) as file, parquet.ParquetWriter(file, schema, compression="zstd") as writer:
        for block in blocks:
            columns = [make([row[name] for row in block]) for name, (_, make) in makers.items()]
            writer.write_table(pa.Table.from_arrays(columns, schema=schema))


def open_shards(folder: Path) -> Shards:
    """The complete shard folder at `folder`; raises `ValueError` if its manifest is missing or damaged."""
    path = folder / "manifest.json"
    if not path.exists():
        raise ValueError(f"{folder} holds no finished shards; run python -m pipeline.shard again to finish them")
    try:
        manifest = seals.read_sealed(path)
    except seals.Damaged as error:
        raise seals.Damaged(f"{error}; {MOVE}") from None
    if lacking := [key for key in ("name", "fingerprint", "classes", "settings") if key not in manifest]:
        raise ValueError(f"{path} lacks {lacking[0]!r}; {MOVE}")
    with files.reading(path, MOVE):
        int(manifest["settings"]["size"])
    return Shards(folder, manifest)


def find_shards(root: Path, name: str, *, size: int, split: str, version: str = "") -> Shards | None:
    """The shards of a dataset at an image size and split mode, the newest if several differ; None if there are none.

    With `version` only those whose fingerprint begins so.
    """
    manifests = sorted(
        root.glob(f"{name}-{size}-{split}-*/manifest.json"),
        key=lambda path: (path.stat().st_mtime, path),
        reverse=True,
    )
    if not version:
        return open_shards(manifests[0].parent) if manifests else None
    every = (open_shards(path.parent) for path in manifests)
    return next((shards for shards in every if shards.fingerprint.startswith(version)), None)


def shards_named(root: Path, text: str, size: int | None) -> Shards:
    """The shards that `text` names: their folder's path, or a dataset's name; the newest of those with `size` pixels.

    Without `size` all of a dataset's shards must have one size. `ValueError` where there are none.
    """
    if "/" in text or (Path(text) / "manifest.json").exists():
        return open_shards(Path(text))
    wanted = f"{glob.escape(text)}-{'*' if size is None else size}-*/manifest.json"
    found = {path.parent: path.stat().st_mtime for path in root.glob(wanted)}
    if not found:
        pixels = "" if size is None else f" of {size} pixels"
        raise ValueError(f"there are no shards of {text}{pixels} in {root}; python -m pipeline.shard makes them")
    sizes = sorted({open_shards(path).size for path in found})
    if len(sizes) > 1:
        raise ValueError(
            f"{root} has shards of {text} of {' and '.join(map(str, sizes))} pixels; give the folder of those you mean"
        )
    return open_shards(max(found, key=lambda path: (found[path], path.name)))


def shards_of(root: Path, ref: DatasetRef, *, size: int) -> Shards:
    """The shards that a spec names; raises `ValueError` if there are none or their images have another size."""
    unreadable: list[ValueError] = []
    for path in sorted(root.glob(f"{ref.name}-*/manifest.json")):
        try:
            shards = open_shards(path.parent)
        except ValueError as error:  # they may be others, which no run here needs
            unreadable.append(error)
            continue
        if shards.fingerprint != ref.fingerprint:
            continue
        if shards.size != size:
            raise ValueError(
                f"the spec needs images of {size} pixels, the shards of {ref.name} hold {shards.size}; shard them at "
                f"{size}, or give the grid IMAGE_SIZE = {shards.size}"
            )
        return shards
    if unreadable:
        raise unreadable[0]
    raise ValueError(
        f"no shards of {ref.name} with fingerprint {ref.fingerprint} under {root}; shard the same files again"
    )
