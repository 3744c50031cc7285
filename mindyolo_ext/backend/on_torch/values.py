"""PyTorch tensors and parameters with the interface that this project uses."""

from typing import Any

import numpy as np
import torch

from mindyolo_ext.backend.on_torch.device import device

bool_ = torch.bool
float16 = torch.float16
float32 = torch.float32
int32 = torch.int32
int64 = torch.int64


class _AnyTensor(type):
    """Make ``isinstance(x, Tensor)`` true for every PyTorch tensor."""

    def __instancecheck__(cls, value: object) -> bool:
        return isinstance(value, torch.Tensor)


class Tensor(metaclass=_AnyTensor):
    """``Tensor(values, dtype)`` creates a ``torch.Tensor`` on the device, with its own memory.

    Args:
        values: array, tensor, number or nested list; Python floats become float32.
        dtype: type that replaces that of ``values``.
    """

    def __new__(cls, values: Any, dtype: torch.dtype | None = None) -> torch.Tensor:
        if isinstance(values, torch.Tensor):
            return values.detach().to(device=device(), dtype=dtype or values.dtype, copy=True)
        if device().type == "cpu":
            array = np.array(values, order="C")  # a copy: PyTorch would share the caller's memory
        else:
            array = np.require(values, requirements=("C", "W"))  # copied to the device anyway
        is_array = isinstance(values, (np.ndarray, np.generic))
        if dtype is None and not is_array and array.dtype == np.float64:
            dtype = float32
        return to_device(torch.from_numpy(array).to(dtype=dtype))


def to_device(host: torch.Tensor) -> torch.Tensor:
    """Copy a CPU tensor to the device. For a GPU it is pinned first, so that the host does not
    wait; a copy from other memory would wait for all queued work.
    """
    if device().type != "cuda":
        return host.to(device())
    return host.pin_memory().to(device(), non_blocking=True)


class Parameter(torch.nn.Parameter):
    """A tensor of a cell. Statistics and counters have ``requires_grad=False``.

    Args:
        values: initial values, copied.
        name: name; empty for its path in the cell.
        requires_grad: whether training changes it; integers are never trained.
    """

    name = ""

    def __new__(
        cls, values: torch.Tensor, name: str | None = None, requires_grad: bool = True
    ) -> "Parameter":
        own = values.detach().clone(memory_format=torch.contiguous_format)
        self = super().__new__(cls, own, requires_grad and own.is_floating_point())
        self.name = name or ""
        return self

    def set_data(self, values: torch.Tensor) -> None:
        """Set other values in place. Raises: ValueError if the shape differs."""
        if values.shape != self.shape:
            raise ValueError(
                f"parameter {self.name}: shape {tuple(values.shape)}, wanted {tuple(self.shape)}"
            )
        with torch.no_grad():
            self.copy_(values)


def _asnumpy(tensor: torch.Tensor) -> np.ndarray:
    """Copy the values to an array; PyTorch's own method would share memory with the tensor."""
    values = tensor.detach()
    return np.array(values.numpy()) if values.device.type == "cpu" else values.cpu().numpy()


torch.Tensor.asnumpy = _asnumpy  # outputs of cells are plain torch.Tensor objects
