"""The one seam to the framework: models, layers and losses import ``nn`` and ``ops`` from here.

``choice.BACKEND`` decides which framework that is. Each module of this package takes what depends
on it from the module of the same name in ``on_<framework>`` and adds what does not.
"""

from mindyolo_ext.backend.choice import BACKEND

if BACKEND == "mindspore":
    from mindyolo_ext.backend.on_mindspore.tensors import (
        HeNormal,
        Parameter,
        Tensor,
        bool_,
        float16,
        float32,
        initializer,
        int32,
        int64,
        nn,
        ops,
    )
elif BACKEND == "shapes":
    from mindyolo_ext.backend.on_shapes.tensors import (
        HeNormal,
        Parameter,
        Tensor,
        bool_,
        float16,
        float32,
        initializer,
        int32,
        int64,
        nn,
        ops,
    )

__all__ = [
    "BACKEND",
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
