"""Device memory as reported by MindSpore."""

from mindspore import runtime


def peak_memory() -> int | None:
    """Return the peak memory of tensors on the device in bytes; None on a CPU."""
    return runtime.max_memory_allocated() or None


def device_memory() -> int | None:
    """Return None: MindSpore has no common call for it."""
    return None
