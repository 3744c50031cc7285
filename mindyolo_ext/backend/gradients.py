"""Derivatives of functions and cells, for tests; training uses ``train_step``."""

from mindyolo_ext.backend.choice import BACKEND

if BACKEND == "mindspore":
    from mindyolo_ext.backend.on_mindspore.gradients import grad, value_and_grad
elif BACKEND == "torch":
    from mindyolo_ext.backend.on_torch.gradients import grad, value_and_grad

__all__ = ["grad", "value_and_grad"]
