"""What MindSpore tells of a device's memory."""

from mindspore import runtime


def peak_memory() -> int | None:
    """Bytes of the device that tensors have taken at most so far; None on a CPU."""
    return runtime.max_memory_allocated() or None


def device_memory() -> int | None:
    """None: MindSpore tells it in another way on every device."""
    return None
