"""Whether cells run as graphs or operator by operator."""

from mindyolo_ext.backend.choice import BACKEND

if BACKEND == "mindspore":
    from mindyolo_ext.backend.on_mindspore.mode import eager, graphs, is_eager
elif BACKEND == "torch":
    from mindyolo_ext.backend.on_torch.mode import eager, graphs, is_eager

__all__ = ["eager", "graphs", "is_eager"]
