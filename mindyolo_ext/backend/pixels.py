"""From the bytes of a batch to what a network reads, on the device.

A byte is a quarter of a float32, so a batch takes a quarter of the time to the device, and the
processes that prepare it are rid of the arithmetic.
"""

from mindyolo_ext.backend.choice import BACKEND

if BACKEND == "mindspore":
    from mindyolo_ext.backend.on_mindspore.pixels import Pixels
elif BACKEND == "torch":
    from mindyolo_ext.backend.on_torch.pixels import Pixels

__all__ = ["Pixels"]
