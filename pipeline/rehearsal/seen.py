"""What a device is asked for, and by which part of the program: operations, waits, uploads, types."""

from __future__ import annotations

import contextlib
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from pipeline.rehearsal.capture import CannotCapture, Recording
from pipeline.rehearsal.memory import Memory, Pinned

PACKAGE = Path(__file__).parent.parent


@dataclass(frozen=True)
class Upload:
    """A copy from the host to the device. It is free of waiting when it is pinned and not blocking."""

    part: str
    place: str
    pinned: bool
    blocking: bool


@dataclass
class Seen:
    """Everything that was asked of a pretended GPU."""

    part: str = "run"
    """What the program is doing: `augmentation`, `forward`, `backward`, `optimizer`, …"""
    launches: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Operations that start work on the device, by part and name; views and allocations are none. Each is one kernel or
    more."""
    waits: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    """What makes the host wait for the device, by part, kind and place."""
    uploads: Counter[Upload] = field(default_factory=Counter)
    mixed: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    """Operations that met tensors on the device and on the host, by part, name and place."""
    dtypes: dict[tuple[str, str], set[str]] = field(default_factory=dict)
    """The types of the floating-point results, by part and operation."""
    gradients: list[str] = field(default_factory=list)
    """Gradients on another device than what they are for."""
    memory: Memory = field(default_factory=Memory)
    pinned: Pinned = field(default_factory=Pinned)
    recordings: list[Recording] = field(default_factory=list)
    """What takes down the operations at the moment."""
    capturing: bool = False
    """Whether operations are captured as a CUDA graph instead of being launched."""

    @contextlib.contextmanager
    def doing(self, part: str) -> Iterator[None]:
        """Count what happens inside under `part`."""
        before, self.part = self.part, part
        try:
            yield
        finally:
            self.part = before

    @contextlib.contextmanager
    def recorded(self, recording: Recording) -> Iterator[None]:
        """Take down what happens inside."""
        self.recordings.append(recording)
        try:
            yield
        finally:
            self.recordings.remove(recording)

    def launch(self, name: str) -> None:
        if not self.capturing:
            self.launches[self.part, name] += 1

    def refuse_capture(self, what: str) -> None:
        """Answer what a capture does not allow as CUDA does."""
        if self.capturing:
            raise CannotCapture(f"{what} at {place()}")

    def launched(self, part: str | None = None) -> int:
        """The number of launches of a part, or of all."""
        return sum(count for (found, _), count in self.launches.items() if part in (None, found))

    def wait(self, kind: str) -> None:
        self.refuse_capture(kind)
        self.waits[self.part, kind, place()] += 1


def place() -> str:
    """The innermost line of the package that is at work, such as `learn/loop.py:172`; `torch` where there is none."""
    frame = sys._getframe(1)
    while frame is not None:
        if name := _in_package(frame.f_code.co_filename):
            return f"{name}:{frame.f_lineno}"
        frame = frame.f_back  # type: ignore[assignment]
    return "torch"


@cache
def _in_package(filename: str) -> str:
    """The file's path in the package; empty where it is elsewhere, or a part of the rehearsal."""
    path = Path(filename)
    inside = PACKAGE in path.parents and "rehearsal" not in path.parts
    return path.relative_to(PACKAGE).as_posix() if inside else ""
