"""Convert the bytes of a batch to a network's input on the device.

A byte is a quarter of a float32, so the transfer of a batch takes a quarter of the time, and the
processes that prepare it skip the arithmetic.
"""

from mindyolo_ext.backend.choice import BACKEND

if BACKEND == "mindspore":
    from mindyolo_ext.backend.on_mindspore.pixels import Pixels
elif BACKEND == "torch":
    from mindyolo_ext.backend.on_torch.pixels import Pixels

__all__ = ["Pixels"]
