"""What PyTorch tells of a device's memory."""

import torch

from mindyolo_ext.backend.on_torch.device import device


def peak_memory() -> int | None:
    """Bytes of the device that tensors have taken at most so far; None on a CPU."""
    place = device()
    return torch.cuda.max_memory_allocated(place) if place.type == "cuda" else None


def device_memory() -> int | None:
    """Bytes that the device has; None on a CPU."""
    place = device()
    return torch.cuda.get_device_properties(place).total_memory if place.type == "cuda" else None
