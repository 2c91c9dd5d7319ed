"""What is measured, where, and the files of what was found: one folder a step, one JSON file a part."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from pipeline.benchmarks.support.measure import Settings
from pipeline.benchmarks.support.training import TOY, untrained
from pipeline.core import files
from pipeline.study import paper

Found = dict[str, Any]
"""What a part found; `error` says why it found nothing."""


@dataclass(frozen=True, kw_only=True)
class Programme:
    """All that the steps are told. With `quick` it is a rehearsal: in little, on the CPU."""

    quick: bool
    scratch: Path
    """A folder for shards, runs and raw images, kept between calls."""
    raw: Path | None
    """A folder with the raw data (`brain_mri`, `isic2019`); None: images are drawn."""
    out: Path
    """The folder of the results."""
    wheels: Path
    """A folder that may hold wheels of what is not installed."""
    weights: Path
    """A folder that may hold ImageNet weights (`pipeline.prefetch`)."""
    minutes: float
    """What the step `table5` may take in one call."""

    @property
    def device(self) -> str:
        return "cpu" if self.quick else "cuda"

    @property
    def size(self) -> int:
        """Pixels on a side."""
        return 32 if self.quick else paper.IMAGE_SIZE

    @property
    def pair(self) -> tuple[paper.Backbone, ...]:
        """The networks of CASS, from random weights: nothing that is timed depends on them."""
        return tuple(untrained(backbone) for backbone in (TOY if self.quick else paper.STANDARD))

    def settings(self, step: str) -> Settings:
        """What the other benchmarks are told when a step uses them."""
        scratch = self.scratch / step
        scratch.mkdir(parents=True, exist_ok=True)
        return Settings(scratch=scratch, raw=self.raw, peers=None, rounds=1, quick=self.quick, say=lambda line: None)

    # --- Results -----------------------------------------------------------------------------------------------

    def path(self, step: str, part: str) -> Path:
        return self.out / step / f"{re.sub(r'[^A-Za-z0-9.%]+', '-', part)}.json"

    def found(self, step: str, part: str) -> Found | None:
        """What the part found, in this call or an earlier one; None if it has no result yet."""
        path = self.path(step, part)
        if not path.exists():
            return None
        value: Found = files.read_json(path, dict, keys=("part",))
        return value

    def write(self, step: str, part: str, found: Found) -> None:
        when = time.strftime("%Y-%m-%d %H:%M:%S")
        files.write_json(self.path(step, part), {"part": part, "time": when, **found})

    def is_done(self, step: str, part: str) -> bool:
        """Whether the part has a result that is no error."""
        found = self.found(step, part)
        return found is not None and "error" not in found


@dataclass(frozen=True, kw_only=True)
class Sheet:
    """A table of the page."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[object]]
    notes: Sequence[str] = ()


class Step(Protocol):
    """A module that is one step."""

    TITLE: str
    MINUTES: float
    """What it may take in one call."""
    parts: Callable[[Programme], list[str]]
    """The names of its parts, the most valuable first."""
    run: Callable[[Programme, str], Found]
    """Do one part; raises `Unfinished` where it stopped as asked and continues in the next call."""
    sheets: Callable[[Programme, Mapping[str, Found]], list[Sheet]]
    """What the parts that have a result come to."""


class Unfinished(Exception):
    """A part ran out of time; what it did is on disk."""
