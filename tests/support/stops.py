"""Stop flags for runs under test."""

from __future__ import annotations


class StopAt:
    """A stop flag that is up at the call with this number (one a step), from 1 on."""

    def __init__(self, call: int) -> None:
        self.call = call
        self.calls = 0

    def __call__(self) -> bool:
        self.calls += 1
        return self.calls == self.call
