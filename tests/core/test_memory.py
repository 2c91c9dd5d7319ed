"""Freed memory stays with the process that asked for that."""

from __future__ import annotations

import subprocess
import sys

import pytest

FAULTS = """
import resource, sys
from pipeline.core import memory
if sys.argv[1] == "kept":
    memory.keep()
for number in range(11):
    if number == 1:  # the first time memory is new in any case
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    three = [b"x" * SIZE for _ in range(3)]
    del three
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
SIZE = 30 << 20  # bytes; small enough for older glibc
HUGE = 2 << 20  # the largest page that comes unasked


def faults(how: str) -> int:
    """Page faults of ten times three objects that are made and freed."""
    command = [sys.executable, "-c", FAULTS.replace("SIZE", str(SIZE)), how]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="mallopt is glibc's")
def test_what_is_freed_is_used_again_without_asking_the_system() -> None:
    least = 10 * 3 * SIZE // HUGE
    assert faults("kept") < least / 3
    assert faults("returned") >= least
