"""Maxima over windows, for which PyTorch's own operator is slow on a CPU."""

import torch
from torch.nn import functional

from mindyolo_ext.backend.on_torch.recording import is_traced

Pair = tuple[int, int]


def max_pool(x: torch.Tensor, kernel_size: Pair, stride: Pair, padding: Pair) -> torch.Tensor:
    """Compute maxima over windows of maps (B, C, H, W); the padding never wins.

    PyTorch's operator stores the index of every maximum for derivatives. If none are needed on a
    CPU, maxima along rows and then along columns give the same values in a tenth of the time.
    """
    if (
        torch.is_grad_enabled()
        or x.device.type != "cpu"
        or any(2 * border >= side for side, border in zip(kernel_size, padding, strict=True))
        or is_traced()
    ):
        return functional.max_pool2d(x, kernel_size, stride, padding)
    for axis in (2, 3):
        i = axis - 2
        x = _maxima(x, axis, kernel_size[i], stride=stride[i], padding=padding[i])
    return x


def _maxima(
    x: torch.Tensor, axis: int, kernel_size: int, *, stride: int, padding: int
) -> torch.Tensor:
    """Compute maxima over windows of ``kernel_size`` along one axis, in a new tensor."""
    length = x.shape[axis]
    count = (length + 2 * padding - kernel_size) // stride + 1
    found = _every(x, axis, range(0, (count - 1) * stride + 1, stride)).clone()
    for offset in range(-padding, kernel_size - padding):
        first = -(min(offset, 0) // stride)
        last = min(count - 1, (length - 1 - offset) // stride)
        if offset == 0 or first > last:
            continue
        places = range(first * stride + offset, last * stride + offset + 1, stride)
        part = found.narrow(axis, first, last - first + 1)
        torch.maximum(part, _every(x, axis, places), out=part)
    return found


def _every(x: torch.Tensor, axis: int, places: range) -> torch.Tensor:
    """Return a view of a slice of an axis."""
    wanted = slice(places.start, places.stop, places.step)
    return x[:, :, wanted] if axis == 2 else x[..., wanted]
