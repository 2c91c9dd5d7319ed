"""What the frozen values of a run are made of: fields that came later, checks of single values, dotted names."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import field
from typing import Any


def later(default: Any) -> Any:
    """A field added after the first ids were given: it enters the hash only when it differs from `default`."""
    return field(default=default, metadata={"later": True})


def one_of(what: str, value: str, known: tuple[str, ...]) -> None:
    """`ValueError` with the known values if `value` is none of them."""
    if value not in known:
        raise ValueError(f"{what} is {value!r}; known: {', '.join(known)}")


def positive(**values: float) -> None:
    """`ValueError` for the first value that is not above zero."""
    for what, value in values.items():
        if not value > 0:
            raise ValueError(f"{what} is {value}; it must be above zero")


def fraction(**values: float) -> None:
    """`ValueError` for the first value that is not in (0, 1]."""
    for what, value in values.items():
        if not 0 < value <= 1:
            raise ValueError(f"{what} is {value}; it is a fraction in (0, 1]")


def half_cosine(first: float, last: float, progress: float) -> float:
    """From `first` at progress 0 to `last` at progress 1, along half a cosine."""
    return last + (first - last) * (1 + math.cos(math.pi * progress)) / 2


def flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested objects as one with dotted names, such as `pretrain.arms.cnn.backbone`; what is None is left out.

    The parts of a list go by their names where they have some; other lists become JSON text.
    """
    out: dict[str, Any] = {}
    for key, content in value.items():
        if isinstance(content, (list, tuple)):
            named = content and all(isinstance(part, Mapping) and "name" in part for part in content)
            content = {part["name"]: part for part in content} if named else json.dumps(content)
        if isinstance(content, Mapping):
            out |= flat(content, f"{prefix}{key}.")
        elif content is not None:
            out[f"{prefix}{key}"] = content
    return out
