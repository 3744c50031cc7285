"""The MindSpore operators in use, implemented on PyTorch with the same names and arguments.

If the frameworks differ, the operator follows MindSpore: integers keep their type in ``cumsum``,
and sorting is stable.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.nn import functional

from mindyolo_ext.backend.on_torch.device import device
from mindyolo_ext.backend.on_torch.sizes import do_sizes_vary

Axis = int | tuple[int, ...]


def abs(x: torch.Tensor) -> torch.Tensor:
    """Compute absolute values."""
    return torch.abs(x)


def argmax(x: torch.Tensor, dim: int) -> torch.Tensor:
    """Return the indices of the largest values along an axis, the first of equal ones."""
    return torch.argmax(x, dim)


def argmin(x: torch.Tensor, axis: int) -> torch.Tensor:
    """Return the indices of the smallest values along an axis, the first of equal ones."""
    return torch.argmin(x, axis)


def atan(x: torch.Tensor) -> torch.Tensor:
    """Angles."""
    return torch.atan(x)


def broadcast_to(x: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
    """Expand ``x`` to ``shape``, without copying."""
    return torch.broadcast_to(x, tuple(shape))


def cast(x: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Convert ``x`` to another type."""
    return x.to(dtype)


def cat(tensors: Sequence[torch.Tensor], axis: int = 0) -> torch.Tensor:
    """Concatenate tensors along an axis."""
    return torch.cat(tensors, axis)


def clamp(x: torch.Tensor, min: float | None = None, max: float | None = None) -> torch.Tensor:
    """Limit ``x`` to ``min``..``max``."""
    if isinstance(max, torch.Tensor) and do_sizes_vary():  # a size: as a number it would be fixed
        return torch.minimum(torch.clamp(x, min), max.to(x.dtype))
    return torch.clamp(x, min, max)


def cumsum(x: torch.Tensor, axis: int) -> torch.Tensor:
    """Compute cumulative sums."""
    return torch.cumsum(x, axis, dtype=x.dtype)


def equal(x: torch.Tensor, y: torch.Tensor | float) -> torch.Tensor:
    """Compare for equality."""
    return torch.eq(x, y)


def exp(x: torch.Tensor) -> torch.Tensor:
    """Compute the exponential."""
    return torch.exp(x)


def expand_dims(x: torch.Tensor, axis: int) -> torch.Tensor:
    """Insert an axis of length 1."""
    return torch.unsqueeze(x, axis)


def flip(x: torch.Tensor, dims: tuple[int, ...]) -> torch.Tensor:
    """Reverse ``x`` along axes."""
    return torch.flip(x, dims)


def floor(x: torch.Tensor) -> torch.Tensor:
    """Round down."""
    return torch.floor(x)


def floor_mod(x: torch.Tensor, y: torch.Tensor | int) -> torch.Tensor:
    """Compute the remainder of a division, with the sign of ``y``."""
    return torch.remainder(x, y)


def full_like(x: torch.Tensor, fill_value: float) -> torch.Tensor:
    """Fill the shape and type of ``x`` with a value."""
    return torch.full_like(x, fill_value)


def isfinite(x: torch.Tensor) -> torch.Tensor:
    """Test for values that are neither infinite nor NaN."""
    return torch.isfinite(x)


def log(x: torch.Tensor) -> torch.Tensor:
    """Compute the natural logarithm."""
    return torch.log(x)


def log_softmax(x: torch.Tensor, axis: int = -1) -> torch.Tensor:
    """Compute the logarithm of ``softmax``."""
    return torch.log_softmax(x, axis)


def logical_and(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Compute the logical AND."""
    return torch.logical_and(x, y)


def logical_not(x: torch.Tensor) -> torch.Tensor:
    """Compute the logical NOT."""
    return torch.logical_not(x)


def matmul(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Multiply matrices."""
    return torch.matmul(x, y)


def max(x: torch.Tensor, axis: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the largest values along an axis and their indices."""
    return torch.max(x, axis)


def mean(x: torch.Tensor, axis: Axis | None = None, keep_dims: bool = False) -> torch.Tensor:
    """Compute means along axes."""
    return torch.mean(x) if axis is None else torch.mean(x, axis, keep_dims)


def min(x: torch.Tensor, axis: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the smallest values along an axis and their indices."""
    return torch.min(x, axis)


def ones_like(x: torch.Tensor) -> torch.Tensor:
    """Return ones in the shape and type of ``x``."""
    return torch.ones_like(x)


def pow(x: torch.Tensor | float, y: torch.Tensor | float) -> torch.Tensor:
    """Raise ``x`` to the power of ``y``."""
    return torch.pow(x, y)


def prelu(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Apply PReLU: ``x`` if positive, else ``weight`` times ``x``."""
    return functional.prelu(x, weight)


def relu(x: torch.Tensor) -> torch.Tensor:
    """Apply ReLU."""
    return functional.relu(x)


def reshape(x: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
    """Change the shape."""
    return torch.reshape(x, tuple(shape))


def rsqrt(x: torch.Tensor) -> torch.Tensor:
    """Compute the inverse square root."""
    return torch.rsqrt(x)


def sigmoid(x: torch.Tensor) -> torch.Tensor:
    """Apply the sigmoid function."""
    return torch.sigmoid(x)


def softmax(x: torch.Tensor, axis: int = -1) -> torch.Tensor:
    """Apply softmax along an axis."""
    return torch.softmax(x, axis)


def softplus(x: torch.Tensor) -> torch.Tensor:
    """Compute log(1 + exp(x))."""
    return functional.softplus(x)


def split(
    x: torch.Tensor, split_size_or_sections: int | Sequence[int], axis: int = 0
) -> tuple[torch.Tensor, ...]:
    """Split along an axis into parts of one size, or of the given sizes."""
    return torch.split(x, split_size_or_sections, axis)


def sqrt(x: torch.Tensor) -> torch.Tensor:
    """Compute the square root."""
    return torch.sqrt(x)


def squeeze(x: torch.Tensor, axis: int) -> torch.Tensor:
    """Remove an axis of length 1."""
    return torch.squeeze(x, axis)


def stack(tensors: Sequence[torch.Tensor], axis: int = 0) -> torch.Tensor:
    """Stack tensors along a new axis."""
    return torch.stack(tuple(tensors), axis)


def stop_gradient(x: torch.Tensor) -> torch.Tensor:
    """Return ``x`` without gradient."""
    return x.detach()


def transpose(x: torch.Tensor, perm: tuple[int, ...]) -> torch.Tensor:
    """Permute the axes."""
    return torch.permute(x, perm)


def unbind(x: torch.Tensor, dim: int = 0) -> tuple[torch.Tensor, ...]:
    """Split into tensors along an axis."""
    return torch.unbind(x, dim)


def where(
    condition: torch.Tensor, x: torch.Tensor | float, y: torch.Tensor | float
) -> torch.Tensor:
    """Select ``x`` where ``condition`` holds, else ``y``."""
    return torch.where(condition, x, y)


def zeros_like(x: torch.Tensor) -> torch.Tensor:
    """Return zeros in the shape and type of ``x``."""
    return torch.zeros_like(x)


def arange(
    start: int, end: int | None = None, step: int = 1, *, dtype: torch.dtype | None = None
) -> torch.Tensor:
    """Return the integers from ``start`` to before ``end``, or from 0 to before ``start``."""
    first, last = (0, start) if end is None else (start, end)
    return torch.arange(first, last, step, dtype=dtype, device=device())


def full(
    size: Sequence[int], fill_value: float, *, dtype: torch.dtype | None = None
) -> torch.Tensor:
    """Return a tensor filled with ``fill_value``."""
    return torch.full(tuple(size), fill_value, dtype=dtype, device=device())


def ones(shape: Sequence[int], dtype: torch.dtype) -> torch.Tensor:
    """Ones."""
    return torch.ones(tuple(shape), dtype=dtype, device=device())


def zeros(size: Sequence[int], dtype: torch.dtype) -> torch.Tensor:
    """Zeros."""
    return torch.zeros(tuple(size), dtype=dtype, device=device())


def sum(x: torch.Tensor, dim: Axis | None = None, keepdim: bool = False) -> torch.Tensor:
    """Sum all values, or along axes; integers give int64."""
    return torch.sum(x) if dim is None else torch.sum(x, dim, keepdim)


def maximum(x: torch.Tensor | float, y: torch.Tensor | float) -> torch.Tensor:
    """Take the larger value. Against an equal number, the gradient goes to the tensor."""
    if not isinstance(x, torch.Tensor):
        x, y = y, x
    return torch.maximum(x, y) if isinstance(y, torch.Tensor) else torch.clamp(x, min=y)


def minimum(x: torch.Tensor | float, y: torch.Tensor | float) -> torch.Tensor:
    """Take the smaller value. Against an equal number, the gradient goes to the tensor."""
    if not isinstance(x, torch.Tensor):
        x, y = y, x
    return torch.minimum(x, y) if isinstance(y, torch.Tensor) else torch.clamp(x, max=y)


def tile(x: torch.Tensor, reps: Sequence[int]) -> torch.Tensor:
    """Repeat ``x`` along axes. Repetitions of axes of length 1 take no memory."""
    x = x.reshape((1,) * (len(reps) - x.ndim) + tuple(x.shape))
    if all(count == 1 or length == 1 for count, length in zip(reps, x.shape)):
        return x.expand([count * length for count, length in zip(reps, x.shape)])
    return x.repeat(tuple(reps))


def topk(x: torch.Tensor, k: int, dim: int = -1) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the ``k`` largest values along an axis, falling, and their indices, any of equal
    ones.
    """
    return torch.topk(x, k, dim)


def sort(
    x: torch.Tensor, axis: int = -1, descending: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return sorted values along an axis and their indices; the order is stable."""
    return torch.sort(x, dim=axis, descending=descending, stable=True)


def gather(x: torch.Tensor, index: torch.Tensor, axis: int) -> torch.Tensor:
    """Select the slices ``index`` (any shape) of ``axis``; the axes of ``index`` replace it."""
    found = torch.index_select(x, axis, index.reshape(-1))
    return found.reshape(x.shape[:axis] + index.shape + x.shape[axis + 1 :])


def gather_elements(x: torch.Tensor, dim: int, index: torch.Tensor) -> torch.Tensor:
    """Select the values at ``index`` along ``dim``; ``index`` has as many axes as ``x``."""
    return torch.gather(x, dim, index.long())


def unsorted_segment_sum(
    x: torch.Tensor, segment_ids: torch.Tensor, num_segments: int
) -> torch.Tensor:
    """Sum the values (n,) of each segment (n,); an empty segment gives 0."""
    empty = torch.zeros((num_segments,), dtype=x.dtype, device=x.device)
    return empty.index_add(0, segment_ids, x)


def unsorted_segment_max(
    x: torch.Tensor, segment_ids: torch.Tensor, num_segments: int
) -> torch.Tensor:
    """Return the largest value (n,) of each segment (n,); an empty one gives the lowest number."""
    kind = torch.finfo if x.is_floating_point() else torch.iinfo
    empty = torch.full((num_segments,), kind(x.dtype).min, dtype=x.dtype, device=x.device)
    return empty.scatter_reduce(0, segment_ids.long(), x, "amax")


def depend(value: torch.Tensor, expr: Any) -> torch.Tensor:  # noqa: ARG001
    """Return ``value``. PyTorch runs operators in program order, so no dependency is needed."""
    return value


@torch.no_grad()
def assign(variable: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """Write ``value`` into a parameter."""
    return variable.copy_(value)


@torch.no_grad()
def scatter_update(
    input_x: torch.Tensor, indices: torch.Tensor, updates: torch.Tensor
) -> torch.Tensor:
    """Overwrite the slices ``indices`` of the first axis of a parameter with ``updates``."""
    input_x[indices.long()] = updates
    return input_x


def constexpr(function: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate a function whose result is cached per arguments and device. Callers must not modify
    it.
    """

    @functools.lru_cache(maxsize=256)
    def cached(_: torch.device, *arguments: Any) -> Any:
        return function(*arguments)

    @functools.wraps(function)
    def constant(*arguments: Any) -> Any:
        return cached(device(), *(_plain(argument) for argument in arguments))

    return constant


def _plain(argument: Any) -> Any:
    """Convert tensors in ``argument`` to numbers; sizes are tensors during an export."""
    if isinstance(argument, tuple):
        return tuple(_plain(part) for part in argument)
    return argument.item() if isinstance(argument, torch.Tensor) else argument


class Conv2D:
    """Convolution without padding, with kernels given as an argument."""

    def __init__(self, out_channel: int, kernel_size: int | tuple[int, int]):
        self.out_channel, self.kernel_size = out_channel, kernel_size

    def __call__(self, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return functional.conv2d(x, weight)


class BiasAdd:
    """Addition of one number per channel."""

    def __call__(self, x: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        return x + bias.reshape(1, -1, 1, 1)
