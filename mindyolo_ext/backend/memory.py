"""Memory in use on the device, if the framework reports it."""

from mindyolo_ext.backend.choice import BACKEND

if BACKEND == "mindspore":
    from mindyolo_ext.backend.on_mindspore.memory import device_memory, peak_memory
elif BACKEND == "torch":
    from mindyolo_ext.backend.on_torch.memory import device_memory, peak_memory

__all__ = ["device_memory", "peak_memory"]
