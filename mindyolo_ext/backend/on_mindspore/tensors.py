"""MindSpore's tensors, layers and operators, imported after the process environment is prepared.

``nn`` and ``ops`` are MindSpore's own modules, which its graph parser needs to recognize.
"""

from mindyolo_ext.backend.on_mindspore.environment import prepare_environment

prepare_environment()

from mindspore import Parameter, Tensor, bool_, float16, float32, int32, int64, nn, ops  # noqa: E402

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
