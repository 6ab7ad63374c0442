"""The C library's allocator, told to keep what is freed.

glibc hands large blocks back to the kernel at once and asks for them again a moment later, every page to be cleared
first: in a training on CPU, up to half of the time (benchmarks/RESULTS.md).
"""

import ctypes
from functools import cache

# Of malloc.h.
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4


@cache
def keep_freed_memory() -> bool:
    """For the rest of the process; whether the C library could be told. It takes up to a third more at its peak."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # no glibc
        return False
    return bool(mallopt(_MMAP_MAX, 0)) and bool(mallopt(_TRIM_THRESHOLD, 2**31 - 1))
