"""Precision of the arithmetic in a network."""

from mindyolo_ext.backend.choice import BACKEND

if BACKEND == "mindspore":
    from mindyolo_ext.backend.on_mindspore.precision import apply
elif BACKEND == "torch":
    from mindyolo_ext.backend.on_torch.precision import apply

__all__ = ["apply"]
