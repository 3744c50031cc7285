"""Keep freed memory for the next image instead of returning it to the system.

Images of a megabyte are allocated and freed all the time; requesting their pages from the system
again takes about a tenth of the time of preparing an image.
"""

import ctypes
import sys

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # constants of glibc's malloc.h
_KEPT = 128 * 2**20  # maximum free bytes at the end of the heap
_LARGEST = 32 * 2**20  # largest block from the heap, bytes; glibc's maximum


def keep_freed_memory() -> bool:
    """Configure the C library of this process; return False if it is not glibc."""
    if sys.platform != "linux":
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):  # such as musl
        return False
    return bool(mallopt(_MMAP_THRESHOLD, _LARGEST) and mallopt(_TRIM_THRESHOLD, _KEPT))
