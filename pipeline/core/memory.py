"""What a process does with memory that is freed."""

from __future__ import annotations

import ctypes

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h
MOST = 2**30  # of free memory that a process holds at its heap's end, in bytes
OLD_GLIBC_MOST = 2**25  # what older ones take for the size from which on memory goes back at once


def keep() -> None:
    """Have glibc keep what is freed instead of returning every large array: fresh pages cost more than most passes."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        if not libc.mallopt(M_MMAP_THRESHOLD, MOST):  # glibc before 2.35
            libc.mallopt(M_MMAP_THRESHOLD, OLD_GLIBC_MOST)
        libc.mallopt(M_TRIM_THRESHOLD, MOST)
