"""Make the C library's allocator keep freed memory.

glibc returns large blocks to the kernel at once and asks for them again a moment later, every page to be cleared
first: half of the time of training on a CPU. Kept blocks of hundreds of MB leave gaps, so that memory may
double: a machine with little of it returns those beyond 32 MB, in large pages, which are cleared faster
(results/speed-allocator.csv).
"""

import ctypes
import os
from functools import cache
from pathlib import Path

# Of malloc.h.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4
_LITTLE = 12 * 2**30
_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


@cache
def has_little_memory() -> bool:
    """Whether this machine or container has less than 12 GB."""
    try:
        limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
        texts = [Path(name).read_text().strip() for name in _LIMITS if Path(name).is_file()]
    except (AttributeError, ValueError, OSError):  # not everywhere
        return False
    return min([*limits, *(int(text) for text in texts if text.isdigit())]) < _LITTLE


@cache
def keep_freed_memory(little: bool | None = None) -> bool:
    """Keep it for the rest of the process; return whether glibc is there.

    Args:
        little: whether to return blocks beyond 32 MB; `has_little_memory` where None.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # no glibc
        return False
    kept = mallopt(_TRIM_THRESHOLD, 2**31 - 1)
    large = (_MMAP_THRESHOLD, 2**25) if (has_little_memory() if little is None else little) else (_MMAP_MAX, 0)
    return bool(kept and mallopt(*large))
