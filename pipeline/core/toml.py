"""TOML files as checked values: the tables of a file are dataclasses, and nothing in it is passed over or guessed."""

from __future__ import annotations

import dataclasses
import math
import sys
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

T = typing.TypeVar("T")


def read(path: Path) -> dict[str, Any]:
    """The tables of a file; raises as `tables`."""
    return tables(path.read_text(encoding="utf-8"))


def tables(text: str) -> dict[str, Any]:
    """The tables of a text; raises `ValueError` with the line and column where it is no TOML."""
    return tomllib.loads(text)


def build(cls: type[T], value: Mapping[str, Any], prefix: str = "") -> T:
    """A dataclass from a table; raises `ValueError` for an unknown key (with the known ones) or a wrong type.

    prefix: how messages name the table, as `slurm.`. A field may be a text, a number, a flag, a dataclass, a tuple or
    mapping of texts or numbers, or a union of these.
    """
    hints = typing.get_type_hints(cls)
    if unknown := sorted(set(value) - set(hints)):
        raise ValueError(f"unknown key {prefix + unknown[0]!r}; known: {', '.join(prefix + key for key in hints)}")
    fields = {field.name: field for field in dataclasses.fields(typing.cast(Any, cls))}
    for key, field in fields.items():
        if key not in value and field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise ValueError(f"{prefix + key} is missing; add it")
    return cls(**{key: _checked(prefix + key, setting, hints[key]) for key, setting in value.items()})


def _checked(key: str, value: Any, hint: Any) -> Any:
    if isinstance(hint, types.UnionType):
        hint = _fitting(value, [option for option in typing.get_args(hint) if option is not type(None)])
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, dict):
            raise ValueError(f"{key} is {value!r}; it must be a table, headed [{key}]")
        return build(typing.cast(type, hint), value, f"{key}.")
    kind, parts = typing.get_origin(hint), typing.get_args(hint)
    if kind is tuple:
        if not isinstance(value, (list, tuple)) or not all(_is_a(part, parts[0]) for part in value):
            raise ValueError(f"{key} is {value!r}; it must be a list of {'texts' if parts[0] is str else 'numbers'}")
        return tuple(value)
    if kind is Mapping:
        if not isinstance(value, dict):
            raise ValueError(f"{key} is {value!r}; it must be a table, as {{ name = value }}")
        return {name: _checked(f"{key}.{name}", item, parts[1]) for name, item in value.items()}
    if not _is_a(value, hint):
        raise ValueError(f"{key} is {value!r}; it must be a {hint.__name__}")
    return value


def _fitting(value: Any, options: list[Any]) -> Any:
    """The option of a union that the value is of, by its shape alone; the first where none is."""
    wanted = tuple if isinstance(value, list) else Mapping if isinstance(value, dict) else None
    for option in options:
        kind = typing.get_origin(option)
        if kind is wanted and (wanted is not None or _is_a(value, option)):
            return option
    return options[0]


def _is_a(value: Any, hint: Any) -> bool:
    """Whether a value is of a plain type: a whole number is a float too, a flag is no number, neither is NaN."""
    if isinstance(value, bool) or hint is bool:
        return isinstance(value, bool) and hint is bool
    if isinstance(value, float) and not math.isfinite(value):
        return False
    return isinstance(value, (int, float) if hint is float else hint)
