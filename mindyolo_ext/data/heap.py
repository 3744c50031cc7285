"""Keeps freed memory for the next image instead of giving it back to the system.

Images of a megabyte come and go by the dozen; fetching their pages anew from the system costs about
a tenth of the time of preparing an image.
"""

import ctypes
import sys

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
_KEPT = 128 * 2**20  # bytes that stay at most at the end of the heap
_LARGEST = 32 * 2**20  # bytes of a piece that comes from the heap; glibc takes no more


def keep_freed_memory() -> bool:
    """Tell the C library of this process; False where it is another one than glibc."""
    if sys.platform != "linux":
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):  # such as musl
        return False
    return bool(mallopt(_MMAP_THRESHOLD, _LARGEST) and mallopt(_TRIM_THRESHOLD, _KEPT))
