"""Names that networks import from a backend."""

from mindyolo_ext.backend.on_shapes import nn, ops
from mindyolo_ext.backend.on_shapes.values import (
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
