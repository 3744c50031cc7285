"""Cells as compiled functions of NumPy arrays."""

from mindyolo_ext.backend.choice import BACKEND

if BACKEND == "mindspore":
    from mindyolo_ext.backend.on_mindspore.compiled import Compiled
elif BACKEND == "torch":
    from mindyolo_ext.backend.on_torch.compiled import Compiled

__all__ = ["Compiled"]
