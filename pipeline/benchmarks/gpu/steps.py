"""The steps, and how a programme is handed to the process of one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from types import ModuleType
from typing import Any, cast

from pipeline.benchmarks.gpu import exactness, machine, sharing, speed, table5
from pipeline.benchmarks.gpu.programme import Programme, Step

MODULES: Mapping[str, ModuleType] = {
    "machine": machine,
    "exactness": exactness,
    "speed": speed,
    "sharing": sharing,
    "table5": table5,
}
STEPS = cast("Mapping[str, Step]", MODULES)
"""In the order of what they are worth."""
PATHS = ("scratch", "raw", "out", "wheels", "weights")


def to_json(programme: Programme) -> str:
    return json.dumps(asdict(programme), default=str)


def from_json(text: str) -> Programme:
    value: dict[str, Any] = json.loads(text)
    return Programme(**value | {name: Path(value[name]) if value[name] else None for name in PATHS})


def current(programme: Programme, step: str) -> Path:
    """The file that names the part at work."""
    return programme.out / step / "current.txt"
