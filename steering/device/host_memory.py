"""What this process's C library does with freed memory: keep it for reuse, or release it to the system."""

from __future__ import annotations

import ctypes
import functools
import platform

# From glibc's malloc.h. Its maximum for the threshold of mapped blocks is half of its largest heap, 32 MiB.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_MAPPED_FROM, _TRIMMED_FROM = 1 << 25, 1 << 30


@functools.cache
def keep_freed_memory() -> None:
    """Make glibc keep large freed blocks for the next step instead of releasing them to the system.

    Scores over a large vocabulary are tens of megabytes a step. Memory that is released and allocated again costs a
    page fault for each of its pages, and these faults took longer than the arithmetic. Does nothing without glibc.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_THRESHOLD, _MAPPED_FROM)
        libc.mallopt(_M_TRIM_THRESHOLD, _TRIMMED_FROM)


def release_freed_memory() -> None:
    """Release all free memory to the system, for use after a model was loaded.

    This includes the scratch memory of the steps, which the next step allocates again. Does nothing without glibc.
    """
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)
