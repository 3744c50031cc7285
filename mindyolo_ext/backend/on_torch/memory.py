"""Memory of the device, and of the process, which PyTorch takes from the C library on a CPU."""

import ctypes
import os
import sys
from collections.abc import Mapping

import torch

from mindyolo_ext.backend.on_torch.device import device

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # numbers of glibc's ``mallopt``
LARGEST_KEPT = 1 << 30  # bytes; a larger block goes back at once
MOST_FREE = (1 << 31) - 1  # bytes at the end of the heap, the most that ``mallopt`` takes


def keep_freed_memory() -> bool:
    """Let the C library keep freed blocks up to 1 GiB for the next ones; returns whether it does.

    glibc gives a map of more than 32 MiB back to the system when it is freed, and asks for it again
    at the next step, where the system has to find and clear every page. Only glibc is told so, and
    only where the environment does not say how it shall do.
    """
    if not sys.platform.startswith("linux") or _is_told(os.environ):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(MMAP_THRESHOLD, LARGEST_KEPT) and mallopt(TRIM_THRESHOLD, MOST_FREE))


def _is_told(environ: Mapping[str, str]) -> bool:
    """Whether the environment has settings of glibc's memory."""
    return any(name.startswith("MALLOC_") for name in environ) or "glibc.malloc" in environ.get(
        "GLIBC_TUNABLES", ""
    )


def peak_memory() -> int | None:
    """Bytes of the device that tensors have taken at most so far; None on a CPU."""
    place = device()
    return torch.cuda.max_memory_allocated(place) if place.type == "cuda" else None


def device_memory() -> int | None:
    """Bytes that the device has; None on a CPU."""
    place = device()
    return torch.cuda.get_device_properties(place).total_memory if place.type == "cuda" else None
