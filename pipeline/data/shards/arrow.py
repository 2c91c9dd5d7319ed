"""Make Arrow arrays of plain values without pandas.

`pyarrow.array` makes the same arrays but imports pandas if it is installed, which takes a third of a second at the end
of every sharding job.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np


def strings(values: Sequence[str | None]) -> Any:
    """Strings; null where a value is None."""
    import pyarrow as pa

    builder = pa.lib.StringBuilder()
    builder.append_values(values)
    return builder.finish()


def lists(values: Sequence[Sequence[str] | None]) -> Any:
    """Lists of strings; null where a value is None."""
    import pyarrow as pa

    valid = np.packbits(np.array([value is not None for value in values], dtype=bool), bitorder="little")
    ends = np.cumsum([0, *(len(value or ()) for value in values)], dtype=np.int32)
    flat = strings(list(itertools.chain.from_iterable(value or () for value in values)))
    buffers = [pa.py_buffer(valid), pa.py_buffer(ends)]
    return pa.Array.from_buffers(pa.list_(pa.string()), len(values), buffers, children=[flat])


def integers(values: Sequence[int], dtype: str) -> Any:
    """Integers of the NumPy type `dtype`; none is null."""
    import pyarrow as pa

    data = np.array(values, dtype)
    return pa.Array.from_buffers(pa.from_numpy_dtype(data.dtype), len(data), [None, pa.py_buffer(data)])
