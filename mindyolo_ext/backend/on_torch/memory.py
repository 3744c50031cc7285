"""Memory of the device and of the process, which PyTorch takes from the C library on a CPU."""

import ctypes
import os
import sys
from collections.abc import Mapping

import torch

from mindyolo_ext.backend.on_torch.device import device

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # parameters of glibc's ``mallopt``
LARGEST_KEPT = 1 << 30  # bytes; larger blocks are returned to the system when freed
MOST_FREE = (1 << 31) - 1  # free bytes at the end of the heap, the maximum of ``mallopt``


def keep_freed_memory() -> bool:
    """Let the C library keep freed blocks up to 1 GiB for reuse. Return whether it does.

    By default glibc returns freed blocks above 32 MiB to the system and requests them again in the
    next step, which has to clear every page. Other C libraries, and a glibc configured by the
    environment, are left alone.
    """
    if not sys.platform.startswith("linux") or _is_told(os.environ):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(MMAP_THRESHOLD, LARGEST_KEPT) and mallopt(TRIM_THRESHOLD, MOST_FREE))


def _is_told(environ: Mapping[str, str]) -> bool:
    """Whether the environment configures glibc's memory."""
    return any(name.startswith("MALLOC_") for name in environ) or "glibc.malloc" in environ.get(
        "GLIBC_TUNABLES", ""
    )


def peak_memory() -> int | None:
    """Return the peak memory of tensors on the device in bytes; None on a CPU."""
    place = device()
    return torch.cuda.max_memory_allocated(place) if place.type == "cuda" else None


def device_memory() -> int | None:
    """Return the memory of the device in bytes; None on a CPU."""
    place = device()
    return torch.cuda.get_device_properties(place).total_memory if place.type == "cuda" else None
