"""Mixed precision: large operators run in half precision, sensitive ones in float32.

A level marks cells, and a marked cell casts its inputs and parameters when it is called. So the
parameters keep their names, paths and float32 values in every network.
"""

from mindyolo_ext.backend import float32, nn
from mindyolo_ext.backend.choice import BACKEND
from mindyolo_ext.backend.distributed import SyncBatchNorm2d
from mindyolo_ext.contracts import Cell

if BACKEND == "mindspore":
    from mindyolo_ext.backend.on_mindspore.precision import HALF, NORMS_READ, check
elif BACKEND == "torch":
    from mindyolo_ext.backend.on_torch.precision import HALF, NORMS_READ, check

__all__ = ["apply"]


def apply(cell: Cell, level: str, dtype: str = "float16") -> None:
    """Let ``cell``, a network or a part of one, compute in mixed precision.

    Convolutions, dense layers and matrix products compute in half precision. Norms always compute
    their statistics in float32. Heads return float32, so decoding, losses and assignment are in
    float32 too.

    Args:
        level: ``O0`` all in float32; ``O1`` norms return float32, so everything up to the next
            convolution is in float32; ``O2`` norms return the type of their input, so feature maps
            stay in half precision; ``O3`` is the same as ``O2``, because parameters and statistics
            of norms are in float32 at every level.
        dtype: the half precision, ``float16`` or ``bfloat16``.

    A network is marked once. Raises: DeviceError if the device does not compute in ``dtype``.
    """
    if level == "O0":
        return
    check(dtype)
    half = HALF[dtype]
    norms_give_float32 = level == "O1" or dtype not in NORMS_READ
    for _, part in cell.cells_and_names():
        if isinstance(part, (nn.BatchNorm2d, SyncBatchNorm2d)):
            if norms_give_float32:
                part.to_float(float32)
        elif isinstance(part, (nn.Conv2d, nn.Dense)) or getattr(part, "half_precision", False):
            part.to_float(half)
