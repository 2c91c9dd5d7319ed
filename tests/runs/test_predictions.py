"""Stored predictions are read as they were written, with their classes in order."""

from __future__ import annotations

import numpy as np
import pyarrow.parquet as parquet
import pytest

from pipeline.runs.predictions import read_classes, read_predictions, write_predictions

KEYS, CLASSES = ["b", "a"], ("true:", "nevus", "a class")
TARGETS = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 1.0]])
SCORES = np.array([[0.1, 0.25, 1.0], [0.0, 0.5, 0.75]])


@pytest.fixture
def path(tmp_path):
    write_predictions(tmp_path / "predictions.parquet", KEYS, CLASSES, TARGETS, SCORES)
    return tmp_path / "predictions.parquet"


def test_what_was_written_is_read(path):
    found = read_predictions(path)
    assert (found.keys, found.classes) == (KEYS, CLASSES) == (found.keys, read_classes(path))
    assert (found.targets.dtype, found.scores.dtype) == (np.int8, np.float32)
    assert np.array_equal(found.targets, TARGETS) and np.array_equal(found.scores, SCORES.astype(np.float32))


def test_the_columns_are_the_key_then_all_labels_then_all_scores(path):
    columns = ["key", *(f"true:{name}" for name in CLASSES), *(f"score:{name}" for name in CLASSES)]
    assert parquet.read_schema(path).names == columns
