"""Max-pooling for which the frameworks need different implementations."""

from mindyolo_ext.backend.choice import BACKEND

if BACKEND == "mindspore":
    from mindyolo_ext.backend.on_mindspore.pooling import HalvingMaxPool
elif BACKEND == "torch":
    from mindyolo_ext.backend.on_torch.pooling import HalvingMaxPool
elif BACKEND == "shapes":
    from mindyolo_ext.backend.on_shapes.pooling import HalvingMaxPool

__all__ = ["HalvingMaxPool"]
