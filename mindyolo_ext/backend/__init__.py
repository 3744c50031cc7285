"""The only package that knows which framework runs; models, layers and losses import from here.

``environment`` is applied before MindSpore is imported, because oneDNN and the launcher read their
settings at that moment.
"""

from mindyolo_ext.backend.environment import prepare_environment

prepare_environment()

from mindspore import Parameter, Tensor, bool_, float16, float32, int32, int64, nn, ops  # noqa: E402
from mindspore.common.initializer import HeNormal, initializer  # noqa: E402

BACKEND = "mindspore"
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
