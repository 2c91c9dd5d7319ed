"""A process that asks for it keeps the memory that it frees."""

from __future__ import annotations

import subprocess
import sys

import pytest

FAULTS = """
import resource, sys
from pipeline.core import memory
if sys.argv[1] == "kept":
    memory.keep_freed_memory()
for number in range(11):
    if number == 1:  # in the first round the memory is new in any case
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    three = [b"x" * SIZE for _ in range(3)]
    del three
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
SIZE = 30 << 20  # bytes; small enough for older glibc
HUGE = 2 << 20  # bytes; the largest page that the system gives unasked


def faults(how: str) -> int:
    """Page faults while three objects are made and freed, ten times."""
    command = [sys.executable, "-c", FAULTS.replace("SIZE", str(SIZE)), how]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="mallopt is glibc's")
def test_freed_memory_is_used_again_without_asking_the_system() -> None:
    minimum = 10 * 3 * SIZE // HUGE
    assert faults("kept") < minimum / 3
    assert faults("returned") >= minimum
