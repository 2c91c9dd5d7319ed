"""A fine-tuning run's stored predictions (predictions.parquet): one row for each labelled test
image.

The columns are `key`, then `true:<class>` (int8, 0 or 1) for every class, then `score:<class>` (float32, a sigmoid) for
every class, in the order of the network's outputs. predictions-val.parquet holds the same of the validation images, and
an evaluation on another dataset (runs/evaluation) of its images, with a column `group`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.core import files

TRUE, SCORE, GROUP = "true:", "score:", "group"


@dataclass(frozen=True)
class Predictions:
    """The test images of a run, their labels and their scores."""

    keys: list[str]
    classes: tuple[str, ...]
    targets: np.ndarray
    """int8 [n, classes], 0 or 1."""
    scores: np.ndarray
    """float32 [n, classes]."""
    groups: list[str | None] | None = None
    """The patient or lesion of each image, where they are stored."""


def write_predictions(
    path: Path,
    keys: list[str],
    classes: Sequence[str],
    targets: np.ndarray,
    scores: np.ndarray,
    groups: Sequence[str | None] | None = None,
) -> None:
    """Publish the file; targets and scores [n, classes] are in the order of keys and classes."""
    import pyarrow as pa
    import pyarrow.parquet as parquet

    columns: dict[str, Any] = {"key": keys}
    for i, name in enumerate(classes):
        columns[f"{TRUE}{name}"] = targets[:, i].astype(np.int8)
    for i, name in enumerate(classes):
        columns[f"{SCORE}{name}"] = scores[:, i].astype(np.float32)
    if groups is not None:
        columns[GROUP] = pa.array(groups, pa.string())
    with files.publish(path) as file:
        parquet.write_table(pa.table(columns), file)


def read_predictions(path: Path) -> Predictions:
    """The stored predictions; raises `ValueError` that names the file where they cannot be read."""
    import pyarrow.parquet as parquet

    try:
        table = parquet.read_table(path)
        classes = _classes(table.column_names)
        targets, scores = (
            np.stack([table[f"{kind}{name}"].to_numpy() for name in classes], axis=1) for kind in (TRUE, SCORE)
        )
        groups = table[GROUP].to_pylist() if GROUP in table.column_names else None
        return Predictions(table["key"].to_pylist(), classes, targets, scores, groups)
    except (ValueError, KeyError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:  # the disk's
            raise
        raise ValueError(f"{path} cannot be read: {' '.join(str(error).split())}") from error


def read_classes(path: Path) -> tuple[str, ...]:
    """The classes in the order of the network's outputs, without reading the rows."""
    import pyarrow.parquet as parquet

    return _classes(parquet.read_schema(path).names)


def _classes(columns: Sequence[str]) -> tuple[str, ...]:
    return tuple(name.removeprefix(SCORE) for name in columns if name.startswith(SCORE))
