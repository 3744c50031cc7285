"""Tensors and parameters with a shape and a type; all their values are zero."""

from typing import Any

import numpy as np

bool_ = np.dtype("bool")
float16 = np.dtype("float16")
float32 = np.dtype("float32")
int32 = np.dtype("int32")
int64 = np.dtype("int64")


class Tensor:
    """Shape and type of an array.

    Args:
        values: array, number or nested list; only its shape and type are kept.
        dtype: type that replaces the array's.
    """

    shape: tuple[int, ...]
    dtype: np.dtype

    def __init__(self, values: Any, dtype: np.dtype | None = None):
        if isinstance(values, Tensor):
            self.shape, own = values.shape, values.dtype
        else:
            array = np.asarray(values)
            self.shape, own = array.shape, array.dtype
        self.dtype = own if dtype is None else np.dtype(dtype)

    def asnumpy(self) -> np.ndarray:
        """Return read-only zeros of this shape and type that take no memory."""
        return np.broadcast_to(np.zeros((), self.dtype), self.shape)


class Parameter(Tensor):
    """A tensor of a cell.

    Args:
        name: not used; parameters are identified by path.
        requires_grad: whether training changes it.
    """

    def __init__(self, default_input: Any, name: str | None = None, requires_grad: bool = True):
        super().__init__(default_input)
        self.name, self.requires_grad = name, requires_grad

    def set_data(self, data: Tensor) -> None:
        """Check the shape only. Raises: ValueError if it differs."""
        if data.shape != self.shape:
            raise ValueError(f"a parameter of shape {self.shape} was set to {data.shape}")
