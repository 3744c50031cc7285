"""Mixed precision: what is large is computed in half precision, what is delicate in float32.

A level marks cells, and a marked cell casts its inputs and parameters when it is called. So the
parameters keep their names, places and float32 values, in networks of any form.
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

    Convolutions, dense layers and products of matrices compute in half precision. Norms compute
    their statistics in float32, whatever they read; heads give float32, and so decoding, losses and
    assignment are in float32 as well.

    Args:
        level: ``O0`` all in float32; ``O1`` norms give float32, so that what follows them, up to
            the next convolution, is in float32; ``O2`` norms give what they read, so that maps stay
            in half precision; ``O3`` as ``O2``, because parameters and statistics of norms are in
            float32 at every level.
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
