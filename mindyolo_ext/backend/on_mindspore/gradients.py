"""MindSpore's derivatives of functions and cells."""

from mindspore import grad, value_and_grad

__all__ = ["grad", "value_and_grad"]
