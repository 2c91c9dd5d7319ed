"""Arrays of plain values equal those of pyarrow's own conversion, and pandas is not imported."""

from __future__ import annotations

import subprocess
import sys

import pyarrow as pa
import pytest

from pipeline.data.shards import arrow

TEXTS = ([], ["a"], ["", None, "größer", "b" * 1000], [None] * 9)
LISTS = ([], [[]], [None], [["a", "b"], None, [], ["ö"]] * 5)


@pytest.mark.parametrize("values", TEXTS)
def test_text(values: list[str | None]) -> None:
    made = arrow.strings(values)
    made.validate(full=True)
    assert made.equals(pa.array(values, pa.string()))


@pytest.mark.parametrize("values", LISTS)
def test_lists_of_text(values: list[list[str] | None]) -> None:
    made = arrow.lists(values)
    made.validate(full=True)
    assert made.equals(pa.array(values, pa.list_(pa.string())))


@pytest.mark.parametrize("dtype", ["int32", "int64"])
@pytest.mark.parametrize("values", [[], [-1, 0, 2**31 - 1]])
def test_integers(values: list[int], dtype: str) -> None:
    made = arrow.integers(values, dtype)
    made.validate(full=True)
    assert made.equals(pa.array(values, dtype))


def test_writing_an_index_does_not_import_pandas() -> None:
    code = """
import sys, tempfile
from pathlib import Path
from pipeline.data.shards.index import COLUMNS, write_index
folder = Path(tempfile.mkdtemp())
write_index(folder / "i", [dict(zip(COLUMNS, ("k", "train", ["a"], None, "t", 0, 1, "00", 1, 1)))])
sys.exit("pandas" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
