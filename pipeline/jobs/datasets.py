"""The datasets of a grid, from the shards that a site has."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from pipeline.core import files
from pipeline.data.datasets import DATASETS
from pipeline.data.shards.counts import counts_of, gaps, parts_without_labels
from pipeline.data.shards.index import Shards, find_shards
from pipeline.data.shards.remote import copy_small_files
from pipeline.runs.cluster import Cluster
from pipeline.runs.spec import DatasetRef
from pipeline.study.setting import Chosen, DatasetInfo

OTHER = {"image": "grouped", "grouped": "image"}


def find_datasets(wanted: Sequence[Chosen], cluster: Cluster, *, size: int) -> tuple[list[DatasetInfo], list[str]]:
    """What a grid knows of each dataset, once each, and the commands that make the shards that are missing.

    Raises `ValueError` for a dataset that is none of ours and has no shards, and for a fingerprint that none have.
    """
    copy_small_files(cluster.shards_from, Path(cluster.shards))
    found: dict[DatasetInfo, None] = {}
    commands = []
    for chosen in wanted:
        info, command = _find(chosen, cluster, size=size)
        split = chosen.split if chosen.several_splits else ""
        version = info.ref.fingerprint[:8] if chosen.several_versions else ""
        found[dataclasses.replace(info, split=split, version=version)] = None
        commands += [command] if command else []
    return list(found), commands


def _find(chosen: Chosen, cluster: Cluster, *, size: int) -> tuple[DatasetInfo, str | None]:
    """What a grid knows of a dataset, and, if it has no shards yet, the command that makes them."""
    name, split = chosen.name, chosen.split
    shards = find_shards(Path(cluster.shards), name, size=size, split=split, version=chosen.version)
    if shards is not None:
        return info_of(shards), None
    other = find_shards(Path(cluster.shards), name, size=size, split=OTHER[split], version=chosen.version)
    own_split = chosen.usual and not chosen.several_splits and name not in DATASETS.names()
    if other is not None and split == "image" and own_split:
        return info_of(other), None  # own images sharded with --split grouped
    if chosen.version:
        raise ValueError(
            f"{cluster.shards} has no shards of {name} at {size} pixels, split {split}, whose fingerprint begins with "
            f"{chosen.version}; omit @{chosen.version} for the newest"
        )
    flags = f"--size {size}" + (f" --split {split}" if split != "image" else "")
    if name in DATASETS.names():
        plugin = DATASETS.find(name).DATASET
        raw = "" if name == "toy" else "--raw DIR "
        command = f"python -m pipeline.shard {name} {raw}{flags}"
        info = DatasetInfo(DatasetRef(name=name, fingerprint=""), plugin.label_fractions, plugin.metric)
        return info, command
    if other is not None:
        raise ValueError(
            f"the shards of {name!r} at {size} pixels under {cluster.shards} have the split {OTHER[split]}, and the "
            f"grid asks for {split}; write {name}:{OTHER[split]}"
        )
    known = ", ".join(DATASETS.names())
    raise ValueError(
        f"there are no shards of {name!r} at {size} pixels, split {split}, under {cluster.shards}, and it is none of "
        f"{known}; make them: python -m pipeline.shard {name} --layout folder --raw DIR {flags}"
    )


def info_of(shards: Shards) -> DatasetInfo:
    """What the manifest of shards says to a grid; raises `ValueError` that names it if it has another shape."""
    manifest = shards.manifest
    with files.reading(shards.folder / "manifest.json", "copy the shards again, or delete the folder and shard again"):
        return DatasetInfo(
            ref=DatasetRef(name=shards.name, fingerprint=shards.fingerprint),
            label_fractions=tuple(map(float, manifest["label_fractions"])),
            metric=str(manifest["metric"]),
            stand_in=bool(manifest.get("stand_in")),
            without_labels=tuple(parts_without_labels(manifest)),
            gaps=tuple(gaps(counts_of(manifest))),
            grouped=manifest["settings"].get("split") == "grouped",
        )
