"""Shards are found by name, size and split, or by the fingerprint in a spec, and only if they are complete."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.core import files
from pipeline.data.shards import index
from pipeline.data.shards.index import COLUMNS, Shards, find_shards, open_shards, shards_named, shards_of, write_index
from pipeline.runs.spec import DatasetRef


def row(key: str, split: str, labels: list[str] | None) -> dict[str, Any]:
    values = (key, split, labels, None, f"{split}-000000.tar", 512, 100, "ab" * 32, 600, 450)
    return dict(zip(COLUMNS, values, strict=True))


ROWS = [
    row("c", "train", ["MEL"]),
    row("a", "train", None),
    row("b", "train", []),
    row("d", "test", ["MEL", "NV"]),
]


def make(root: Path, fingerprint: str, *, size: int = 64, split: str = "image") -> Shards:
    folder = root / f"isic-{size}-{split}-{fingerprint[:8]}"
    write_index(folder / "index.parquet", ROWS)
    settings = {"size": size, "split": split}
    manifest = {"name": "isic", "fingerprint": fingerprint, "classes": ["MEL", "NV"], "settings": settings}
    files.write_json(folder / "manifest.json", manifest)
    return Shards(folder, manifest)


@pytest.mark.parametrize("block", [1, 2, 1000])
def test_the_index_gives_back_its_rows_in_their_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    monkeypatch.setattr(index, "ROW_GROUP", block)  # several row groups, each with a dictionary of its own
    shards = make(tmp_path, "0123456789abcdef")
    assert {name: list(column) for name, column in shards.rows.items()} == {
        name: [row[name] for row in ROWS] for name in COLUMNS
    }
    assert all(
        len(column) == len(ROWS) and column[np.int64(3)] == ROWS[3][name] for name, column in shards.rows.items()
    )
    assert shards.of_split("train") == [0, 1, 2] and shards.of_split("test") == [3]
    assert shards.of_split("val") == []
    # not labelled differs from labelled as none of the classes
    assert shards.labels([3, 1, 2]) == [("MEL", "NV"), None, ()]
    assert (shards.name, shards.size, shards.classes) == ("isic", 64, ("MEL", "NV"))


def test_the_same_rows_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_index(tmp_path / name, ROWS)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_shards_are_found_by_name_size_and_split(tmp_path: Path) -> None:
    wanted = make(tmp_path, "1" * 16)
    make(tmp_path, "2" * 16, size=96)
    make(tmp_path, "3" * 16, split="grouped")
    assert find_shards(tmp_path, "isic", size=64, split="image") == wanted
    assert find_shards(tmp_path, "isic", size=128, split="image") is None
    assert find_shards(tmp_path, "brain_mri", size=64, split="image") is None
    assert find_shards(tmp_path / "nowhere", "isic", size=64, split="image") is None


def test_the_newest_of_differing_shards_are_found(tmp_path: Path) -> None:
    for number, seconds in (("1", 3000), ("2", 5000), ("3", 4000)):
        manifest = make(tmp_path, number * 16).folder / "manifest.json"
        os.utime(manifest, (seconds, seconds))
    found = find_shards(tmp_path, "isic", size=64, split="image")
    assert found is not None and found.fingerprint == "2" * 16


def test_unfinished_shards_are_not_found(tmp_path: Path) -> None:
    shards = make(tmp_path, "1" * 16)
    (shards.folder / "manifest.json").unlink()
    assert find_shards(tmp_path, "isic", size=64, split="image") is None
    with pytest.raises(ValueError, match="holds no finished shards; run python -m pipeline.shard again to finish"):
        open_shards(shards.folder)


ONE, OTHER = DatasetRef(name="isic", fingerprint="1" * 8 + "a" * 8), DatasetRef(name="isic", fingerprint="1" * 16)


def test_a_spec_finds_its_shards_by_their_whole_fingerprint(tmp_path: Path) -> None:
    wanted = make(tmp_path, ONE.fingerprint)
    assert shards_of(tmp_path, ONE, size=64) == wanted
    with pytest.raises(ValueError, match="no shards of isic with fingerprint 1{16} under .*; shard the same files"):
        shards_of(tmp_path, OTHER, size=64)


def test_a_spec_that_needs_another_size_is_an_error_that_names_both(tmp_path: Path) -> None:
    make(tmp_path, ONE.fingerprint)
    with pytest.raises(ValueError, match="the spec needs images of 384 pixels, the shards of isic hold 64; shard"):
        shards_of(tmp_path, ONE, size=384)


def test_shards_are_named_by_their_dataset_or_their_folder_and_a_wrong_path_is_an_error(tmp_path: Path) -> None:
    shards = make(tmp_path, "0123456789abcdef")
    assert shards_named(tmp_path, "isic", 64).folder == shards_named(Path("elsewhere"), str(shards.folder), 64).folder
    for text in (str(tmp_path / "typo"), "no/such", "./isic"):
        with pytest.raises(ValueError, match="holds no finished shards"):
            shards_named(tmp_path, text, 64)
    for text in ("**", "i*", "[i]sic"):
        with pytest.raises(ValueError, match="there are no shards of"):
            shards_named(tmp_path, text, 64)
