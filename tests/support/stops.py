"""Stop flags for runs under test."""

from __future__ import annotations


class StopAt:
    """A stop flag that comes up at the given look (one a step)."""

    def __init__(self, look: int) -> None:
        self.look = look
        self.looks = 0

    def __call__(self) -> bool:
        self.looks += 1
        return self.looks == self.look
