"""Freed memory stays with the process.

A step frees what it took, and the C library gives it back to the system; the next step then pays for every page anew,
on the CPU up to a third of its time.
"""

import ctypes

# of mallopt in glibc's malloc.h
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_LARGEST_MMAP_THRESHOLD = 32 << 20  # larger blocks come from the system, and go back to it, in any case


def keep_freed_memory() -> bool:
    """Let this process keep freed memory for its next step, for good; for programs that do the same again and again.

    Returns whether the C library could be told: glibc (Linux) can.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    return bool(mallopt(_TRIM_THRESHOLD, 2**31 - 1) and mallopt(_MMAP_THRESHOLD, _LARGEST_MMAP_THRESHOLD))
