"""The only access to the framework: models, layers and losses import ``nn`` and ``ops`` from here.

``choice.BACKEND`` selects the framework. Each module of this package imports what depends on it
from the module of the same name in ``on_<framework>``, and adds the common part.
"""

from mindyolo_ext.backend.choice import BACKEND

if BACKEND == "mindspore":
    from mindyolo_ext.backend.on_mindspore import tensors
elif BACKEND == "torch":
    from mindyolo_ext.backend.on_torch import tensors
elif BACKEND == "shapes":
    from mindyolo_ext.backend.on_shapes import tensors

nn = tensors.nn
ops = tensors.ops
Parameter = tensors.Parameter
Tensor = tensors.Tensor
bool_ = tensors.bool_
float16 = tensors.float16
float32 = tensors.float32
int32 = tensors.int32
int64 = tensors.int64

__all__ = [
    "BACKEND",
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
