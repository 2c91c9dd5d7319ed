"""Make a process keep the memory that it frees."""

from __future__ import annotations

import ctypes

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h
MAX_KEPT_BYTES = 2**30  # free memory that a process keeps at the end of its heap
MAX_MMAP_THRESHOLD = 2**25  # bytes; glibc before 2.35 refuses a larger M_MMAP_THRESHOLD


def keep_freed_memory() -> None:
    """Make glibc keep freed memory for the next array instead of returning it to the system.

    Page faults on fresh memory cost more time than most operations on the array. Does nothing without glibc.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        if not libc.mallopt(M_MMAP_THRESHOLD, MAX_KEPT_BYTES):  # glibc before 2.35
            libc.mallopt(M_MMAP_THRESHOLD, MAX_MMAP_THRESHOLD)
        libc.mallopt(M_TRIM_THRESHOLD, MAX_KEPT_BYTES)
