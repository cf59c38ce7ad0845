"""How this process's C library treats freed memory."""

from __future__ import annotations

import ctypes
import functools
import platform

# From glibc's malloc.h. It takes no larger threshold for mapped blocks than half of its largest heap.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_MAPPED_FROM, _TRIMMED_FROM = 1 << 25, 1 << 30


@functools.cache
def keep_freed_memory() -> None:
    """Let glibc keep large freed blocks for the next step instead of giving them back to the system.

    Scores over a large vocabulary are tens of megabytes a step. Given back and asked for anew, every page of them
    costs a fault, which took longer than the arithmetic on it. Does nothing where the C library is another.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_THRESHOLD, _MAPPED_FROM)
        libc.mallopt(_M_TRIM_THRESHOLD, _TRIMMED_FROM)


def give_freed_memory_back() -> None:
    """Give all that is free back to the system, as after a load.

    That is the steps' own scratch as well, whose pages the next step takes anew.
    """
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)
