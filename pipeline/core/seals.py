"""Seals: what a JSON file says of its own bytes and of the files that it names, so that a reader sees damage.

A sealed object holds `files`, the size and SHA-256 of each file next to it that it names, and `seal`, the SHA-256 of
all its other values. Files of earlier versions hold neither and are read as before.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pipeline.core import files

FILES, SEAL = "files", "seal"


class Damaged(ValueError):
    """A file does not hold what was written."""


def sealed(value: dict[str, Any], paths: Iterable[Path] = ()) -> dict[str, Any]:
    """The object with the size and checksum of these files, which are in its own folder, and a seal of its own."""
    named = {path.name: {"bytes": path.stat().st_size, "sha256": files.sha256_file(path)} for path in paths}
    value = {name: item for name, item in value.items() if name != SEAL} | {FILES: named}
    return {**value, SEAL: _digest(value)}


def read_sealed(path: Path) -> dict[str, Any]:
    """The object in a file that may be sealed; `Damaged` if its seal says otherwise, `ValueError` if it is no JSON."""
    value: dict[str, Any] = files.read_json(path, dict)
    if not {FILES, SEAL} & value.keys():
        return value
    found = _digest({name: item for name, item in value.items() if name != SEAL})
    if value.get(SEAL) != found or not isinstance(value.get(FILES), dict):
        raise Damaged(f"{path} was changed after it was written: its seal is {value.get(SEAL)}, not {found}")
    return value


def seals_of(value: dict[str, Any]) -> dict[str, Any]:
    """The part of a sealed object that names files and seals it; empty where it is not sealed."""
    return {name: value[name] for name in (FILES, SEAL) if name in value}


def check_sizes(folder: Path, value: dict[str, Any]) -> None:
    """Raise `Damaged` where a file that the object names is missing or has another size; reads nothing of it."""
    for name, entry in value.get(FILES, {}).items():
        path = os.path.join(folder, name)  # a plan does this ten thousand times
        try:
            size = os.stat(path).st_size
        except FileNotFoundError:
            raise Damaged(f"{path} is missing") from None
        if size != entry["bytes"]:
            raise Damaged(f"{path} has {size:,} bytes, not the {entry['bytes']:,} that were written")


def checked_sha256(path: Path, value: dict[str, Any]) -> str:
    """The SHA-256 of a file; raises `Damaged` where the object names it with another."""
    entry = value.get(FILES, {}).get(path.name)
    if entry is not None:
        check_sizes(path.parent, {FILES: {path.name: entry}})
    found = files.sha256_file(path)
    if entry is not None and entry["sha256"] != found:
        raise Damaged(f"{path} was changed after it was written: its SHA-256 is {found}, not {entry['sha256']}")
    return found


def _digest(value: dict[str, Any]) -> str:
    """The SHA-256 of an object as JSON, whatever the order of its keys."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
