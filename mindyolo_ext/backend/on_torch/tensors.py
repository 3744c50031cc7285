"""Names that networks and losses import from a backend."""

from mindyolo_ext.backend.on_torch import nn, ops
from mindyolo_ext.backend.on_torch.values import (
    Parameter,
    Tensor,
    bool_,
    float16,
    float32,
    int32,
    int64,
)

__all__ = [
    "Parameter",
    "Tensor",
    "bool_",
    "float16",
    "float32",
    "int32",
    "int64",
    "nn",
    "ops",
]
