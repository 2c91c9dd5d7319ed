"""Datasets as grids see them, without shards."""

from __future__ import annotations

from collections.abc import Iterable

from pipeline.data.datasets import DATASETS
from pipeline.runs.spec import DatasetRef
from pipeline.study.setting import DatasetInfo


def dataset_infos(names: Iterable[str]) -> list[DatasetInfo]:
    """The datasets of these names, with a fingerprint made of the name."""
    out = []
    for name in names:
        plugin = DATASETS.find(name).DATASET
        ref = DatasetRef(name=name, fingerprint=f"{name:0<16}"[:16])
        out.append(DatasetInfo(ref, plugin.label_fractions, plugin.metric))
    return out
