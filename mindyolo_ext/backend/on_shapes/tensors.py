"""What networks import from a backend."""

from mindyolo_ext.backend.on_shapes import nn, ops
from mindyolo_ext.backend.on_shapes.values import (
    HeNormal,
    Parameter,
    Tensor,
    bool_,
    float16,
    float32,
    initializer,
    int32,
    int64,
)

__all__ = [
    "HeNormal",
    "Parameter",
    "Tensor",
    "bool_",
    "float16",
    "float32",
    "initializer",
    "int32",
    "int64",
    "nn",
    "ops",
]
