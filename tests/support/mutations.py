"""Damage to files from a seed: nothing that reads them may return what was not written, or end in a traceback.

CI tries a few hundred of each kind; CASS_MUTATIONS=20000 in the environment tries more.
"""

from __future__ import annotations

import copy
import json
import os
import random
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")
SEED = 2022
VALUES: list[Any] = [
    None,
    True,
    0,
    -1,
    2**70,
    1.5,
    1e400,
    float("nan"),
    "",
    "x",
    "../../x",
    "\ud800",
    "\x1b[2J\n",
    [],
    {},
]
VALUES += [[None], [[]], {"x": None}, ["a"] * 50]
PIECES = [
    b"\0",
    b"\xff\xfe",
    b"\n",
    b"[" * 3000,
    b'{"a":',
    b"NaN",
    b"1e999",
    b"\\ud800",
    b"null",
    b"9" * 5000,
    b'"',
    b",",
]


def count(default: int) -> int:
    """How many mutations of one kind to try."""
    return int(os.environ.get("CASS_MUTATIONS", default))


def damaged(data: bytes, rng: random.Random) -> bytes:
    """One small damage: a byte changed, removed or put in, a cut, a piece twice."""
    if not data:
        return b","
    at, end = sorted(rng.randrange(len(data)) for _ in range(2))
    new = bytes([rng.choice([0, 10, 13, 34, 44, 59, 255, rng.randrange(256)])])
    return rng.choice(
        [
            data[:at] + new + data[at + 1 :],
            data[:at] + data[at + 1 :],
            data[:at] + new + data[at:],
            data[:end],
            data[:at] + data[at:end] * 2 + data[end:],
        ]
    )


def damaged_text(data: bytes, rng: random.Random) -> bytes:
    """One to four small damages, or a piece that parsers stumble over."""
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(data) + 1)
        data = data[:at] + rng.choice(PIECES) + data[at:] if rng.random() < 0.2 else damaged(data, rng)
    return data


def damaged_json(value: Any, rng: random.Random) -> bytes:
    """A value as JSON with parts of another type, without a key or with more; or its text damaged."""
    if rng.random() < 0.3:
        return damaged_text(json.dumps(value).encode(), rng)
    holder = [copy.deepcopy(value)]
    for _ in range(rng.randint(1, 3)):
        _change(holder, rng)
    return json.dumps(holder[0]).encode()


def _change(holder: list[Any], rng: random.Random) -> None:
    """Change one part, at any depth."""
    part: Any = holder
    key: Any = 0
    while isinstance(part[key], (dict, list)) and part[key] and rng.random() < 0.8:
        part = part[key]
        key = rng.choice(list(part)) if isinstance(part, dict) else rng.randrange(len(part))
    if part is not holder and rng.random() < 0.3:
        del part[key]
    elif isinstance(part, dict) and rng.random() < 0.2:
        part[rng.choice(["x", "", "kind", "\x1b"])] = rng.choice(VALUES)
    else:
        part[key] = copy.deepcopy(rng.choice(VALUES))


def read_or_refused(read: Callable[[], T], name: str) -> T | None:
    """What `read` returns; None if it refuses with an error that a person can read: one line with the file's name."""
    try:
        return read()
    except (ValueError, OSError) as error:
        assert not isinstance(error, (UnicodeError, json.JSONDecodeError)), error  # of a reader that names no file
        text = str(error)
        assert name in text and "\n" not in text, text
    return None
