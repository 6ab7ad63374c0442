"""Make the C library's allocator keep freed memory.

glibc returns large blocks to the kernel at once and asks for them again a moment later, every page to be cleared
first: up to half of the time of training on a CPU (benchmarks/RESULTS.md).
"""

import ctypes
from functools import cache

# Of malloc.h.
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4


@cache
def keep_freed_memory() -> bool:
    """Keep it for the rest of the process; return whether glibc is there. Peak memory grows by up to a third."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # no glibc
        return False
    return bool(mallopt(_MMAP_MAX, 0)) and bool(mallopt(_TRIM_THRESHOLD, 2**31 - 1))
