"""DINO, the paper's baseline (paper E.2.1, fidelity 3c). Planned, not built yet: its runs say so and wait."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.spec import PretrainSpec

OPTIONS = ("out_dim",)
MESSAGE = "the method dino is not built yet"


def build(spec: PretrainSpec, arms: Mapping[str, Any]) -> Any:
    raise ValueError(MESSAGE)


def outputs(spec: PretrainSpec) -> int:
    raise ValueError(MESSAGE)
