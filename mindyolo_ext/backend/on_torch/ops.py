"""MindSpore's operators in use, on PyTorch's: the same names and arguments.

Where the two frameworks differ, the operator does as MindSpore's: integers keep their type in
``cumsum``, and equal values are sorted by their place.
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
    """Absolute values."""
    return torch.abs(x)


def argmax(x: torch.Tensor, dim: int) -> torch.Tensor:
    """Places of the largest values along an axis, of equal ones the first."""
    return torch.argmax(x, dim)


def argmin(x: torch.Tensor, axis: int) -> torch.Tensor:
    """Places of the smallest values along an axis, of equal ones the first."""
    return torch.argmin(x, axis)


def atan(x: torch.Tensor) -> torch.Tensor:
    """Angles."""
    return torch.atan(x)


def broadcast_to(x: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
    """``x`` repeated to ``shape``, without memory."""
    return torch.broadcast_to(x, tuple(shape))


def cast(x: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """``x`` in another type."""
    return x.to(dtype)


def cat(tensors: Sequence[torch.Tensor], axis: int = 0) -> torch.Tensor:
    """Tensors one after the other along an axis."""
    return torch.cat(tensors, axis)


def clamp(x: torch.Tensor, min: float | None = None, max: float | None = None) -> torch.Tensor:
    """``x``, not below ``min`` and not above ``max``."""
    if isinstance(max, torch.Tensor) and do_sizes_vary():  # a size: as a number it would be fixed
        return torch.minimum(torch.clamp(x, min), max.to(x.dtype))
    return torch.clamp(x, min, max)


def cumsum(x: torch.Tensor, axis: int) -> torch.Tensor:
    """Sums of all values up to a place."""
    return torch.cumsum(x, axis, dtype=x.dtype)


def equal(x: torch.Tensor, y: torch.Tensor | float) -> torch.Tensor:
    """Where both are equal."""
    return torch.eq(x, y)


def exp(x: torch.Tensor) -> torch.Tensor:
    """e to the power of ``x``."""
    return torch.exp(x)


def expand_dims(x: torch.Tensor, axis: int) -> torch.Tensor:
    """One more axis, of length 1."""
    return torch.unsqueeze(x, axis)


def flip(x: torch.Tensor, dims: tuple[int, ...]) -> torch.Tensor:
    """``x`` in reverse along axes."""
    return torch.flip(x, dims)


def floor(x: torch.Tensor) -> torch.Tensor:
    """The integer below."""
    return torch.floor(x)


def floor_mod(x: torch.Tensor, y: torch.Tensor | int) -> torch.Tensor:
    """What is left of a division, with the sign of ``y``."""
    return torch.remainder(x, y)


def full_like(x: torch.Tensor, fill_value: float) -> torch.Tensor:
    """A value in the shape and type of ``x``."""
    return torch.full_like(x, fill_value)


def isfinite(x: torch.Tensor) -> torch.Tensor:
    """Where ``x`` is neither infinite nor NaN."""
    return torch.isfinite(x)


def log(x: torch.Tensor) -> torch.Tensor:
    """Natural logarithm."""
    return torch.log(x)


def log_softmax(x: torch.Tensor, axis: int = -1) -> torch.Tensor:
    """Logarithm of ``softmax``."""
    return torch.log_softmax(x, axis)


def logical_and(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Where both hold."""
    return torch.logical_and(x, y)


def logical_not(x: torch.Tensor) -> torch.Tensor:
    """Where ``x`` does not hold."""
    return torch.logical_not(x)


def matmul(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Product of matrices."""
    return torch.matmul(x, y)


def max(x: torch.Tensor, axis: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Largest values along an axis and their places."""
    return torch.max(x, axis)


def mean(x: torch.Tensor, axis: Axis | None = None, keep_dims: bool = False) -> torch.Tensor:
    """Means along axes."""
    return torch.mean(x) if axis is None else torch.mean(x, axis, keep_dims)


def min(x: torch.Tensor, axis: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Smallest values along an axis and their places."""
    return torch.min(x, axis)


def ones_like(x: torch.Tensor) -> torch.Tensor:
    """Ones of the shape and type of ``x``."""
    return torch.ones_like(x)


def pow(x: torch.Tensor | float, y: torch.Tensor | float) -> torch.Tensor:
    """``x`` to the power of ``y``."""
    return torch.pow(x, y)


def prelu(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """``x`` where it is positive, else ``weight`` times ``x``."""
    return functional.prelu(x, weight)


def relu(x: torch.Tensor) -> torch.Tensor:
    """``x`` where it is positive, else 0."""
    return functional.relu(x)


def reshape(x: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
    """The values in another shape."""
    return torch.reshape(x, tuple(shape))


def rsqrt(x: torch.Tensor) -> torch.Tensor:
    """One over the square root."""
    return torch.rsqrt(x)


def sigmoid(x: torch.Tensor) -> torch.Tensor:
    """1 / (1 + e to the power of -``x``)."""
    return torch.sigmoid(x)


def softmax(x: torch.Tensor, axis: int = -1) -> torch.Tensor:
    """Shares that sum to 1 along an axis."""
    return torch.softmax(x, axis)


def softplus(x: torch.Tensor) -> torch.Tensor:
    """log(1 + e to the power of ``x``)."""
    return functional.softplus(x)


def split(
    x: torch.Tensor, split_size_or_sections: int | Sequence[int], axis: int = 0
) -> tuple[torch.Tensor, ...]:
    """Parts of one size, or of these sizes, along an axis."""
    return torch.split(x, split_size_or_sections, axis)


def sqrt(x: torch.Tensor) -> torch.Tensor:
    """Square root."""
    return torch.sqrt(x)


def squeeze(x: torch.Tensor, axis: int) -> torch.Tensor:
    """``x`` without an axis of length 1."""
    return torch.squeeze(x, axis)


def stack(tensors: Sequence[torch.Tensor], axis: int = 0) -> torch.Tensor:
    """Tensors along a new axis."""
    return torch.stack(tuple(tensors), axis)


def stop_gradient(x: torch.Tensor) -> torch.Tensor:
    """``x`` without gradient."""
    return x.detach()


def transpose(x: torch.Tensor, perm: tuple[int, ...]) -> torch.Tensor:
    """The axes in another order."""
    return torch.permute(x, perm)


def unbind(x: torch.Tensor, dim: int = 0) -> tuple[torch.Tensor, ...]:
    """The tensors along an axis."""
    return torch.unbind(x, dim)


def where(
    condition: torch.Tensor, x: torch.Tensor | float, y: torch.Tensor | float
) -> torch.Tensor:
    """``x`` where ``condition`` holds, else ``y``."""
    return torch.where(condition, x, y)


def zeros_like(x: torch.Tensor) -> torch.Tensor:
    """Zeros of the shape and type of ``x``."""
    return torch.zeros_like(x)


def arange(
    start: int, end: int | None = None, step: int = 1, *, dtype: torch.dtype | None = None
) -> torch.Tensor:
    """Integers from ``start``, or from 0 to it, to before ``end``."""
    first, last = (0, start) if end is None else (start, end)
    return torch.arange(first, last, step, dtype=dtype, device=device())


def full(
    size: Sequence[int], fill_value: float, *, dtype: torch.dtype | None = None
) -> torch.Tensor:
    """``fill_value`` everywhere."""
    return torch.full(tuple(size), fill_value, dtype=dtype, device=device())


def ones(shape: Sequence[int], dtype: torch.dtype) -> torch.Tensor:
    """Ones."""
    return torch.ones(tuple(shape), dtype=dtype, device=device())


def zeros(size: Sequence[int], dtype: torch.dtype) -> torch.Tensor:
    """Zeros."""
    return torch.zeros(tuple(size), dtype=dtype, device=device())


def sum(x: torch.Tensor, dim: Axis | None = None, keepdim: bool = False) -> torch.Tensor:
    """Sum of all values, or along axes; of integers an int64."""
    return torch.sum(x) if dim is None else torch.sum(x, dim, keepdim)


def maximum(x: torch.Tensor | float, y: torch.Tensor | float) -> torch.Tensor:
    """The larger one. Where a number equals the tensor the gradient is the tensor's."""
    if not isinstance(x, torch.Tensor):
        x, y = y, x
    return torch.maximum(x, y) if isinstance(y, torch.Tensor) else torch.clamp(x, min=y)


def minimum(x: torch.Tensor | float, y: torch.Tensor | float) -> torch.Tensor:
    """The smaller one. Where a number equals the tensor the gradient is the tensor's."""
    if not isinstance(x, torch.Tensor):
        x, y = y, x
    return torch.minimum(x, y) if isinstance(y, torch.Tensor) else torch.clamp(x, max=y)


def tile(x: torch.Tensor, reps: Sequence[int]) -> torch.Tensor:
    """``x`` repeated along axes. Repetitions of axes of length 1 take no memory."""
    x = x.reshape((1,) * (len(reps) - x.ndim) + tuple(x.shape))
    if all(count == 1 or length == 1 for count, length in zip(reps, x.shape)):
        return x.expand([count * length for count, length in zip(reps, x.shape)])
    return x.repeat(tuple(reps))


def topk(x: torch.Tensor, k: int, dim: int = -1) -> tuple[torch.Tensor, torch.Tensor]:
    """The ``k`` largest values along an axis, falling, and their places; of equal ones any."""
    return torch.topk(x, k, dim)


def sort(
    x: torch.Tensor, axis: int = -1, descending: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    """Sorted values along an axis and their places, of equal ones the first place first."""
    return torch.sort(x, dim=axis, descending=descending, stable=True)


def gather(x: torch.Tensor, index: torch.Tensor, axis: int) -> torch.Tensor:
    """The slices ``index`` (any shape) of ``axis``, with the axes of ``index`` in its place."""
    found = torch.index_select(x, axis, index.reshape(-1))
    return found.reshape(x.shape[:axis] + index.shape + x.shape[axis + 1 :])


def gather_elements(x: torch.Tensor, dim: int, index: torch.Tensor) -> torch.Tensor:
    """Of every line along ``dim`` the values at ``index``, which has as many axes as ``x``."""
    return torch.gather(x, dim, index.long())


def unsorted_segment_sum(
    x: torch.Tensor, segment_ids: torch.Tensor, num_segments: int
) -> torch.Tensor:
    """Sums of the values (n,) of each segment (n,), 0 for one without values."""
    empty = torch.zeros((num_segments,), dtype=x.dtype, device=x.device)
    return empty.index_add(0, segment_ids, x)


def unsorted_segment_max(
    x: torch.Tensor, segment_ids: torch.Tensor, num_segments: int
) -> torch.Tensor:
    """Largest of the values (n,) of each segment (n,), the least number for one without values."""
    kind = torch.finfo if x.is_floating_point() else torch.iinfo
    empty = torch.full((num_segments,), kind(x.dtype).min, dtype=x.dtype, device=x.device)
    return empty.scatter_reduce(0, segment_ids.long(), x, "amax")


def depend(value: torch.Tensor, expr: Any) -> torch.Tensor:  # noqa: ARG001
    """``value``. Operators run in the order of the lines, which a graph has to be told."""
    return value


@torch.no_grad()
def assign(variable: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """Write ``value`` into a parameter."""
    return variable.copy_(value)


@torch.no_grad()
def scatter_update(
    input_x: torch.Tensor, indices: torch.Tensor, updates: torch.Tensor
) -> torch.Tensor:
    """Write ``updates`` over the slices ``indices`` of the first axis of a parameter."""
    input_x[indices.long()] = updates
    return input_x


def constexpr(function: Callable[..., Any]) -> Callable[..., Any]:
    """Decorator of what is computed once for the same arguments and device. Nobody may write to
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
    """``argument`` with numbers for tensors, which is what sizes are while a file is exported."""
    if isinstance(argument, tuple):
        return tuple(_plain(part) for part in argument)
    return argument.item() if isinstance(argument, torch.Tensor) else argument


class Conv2D:
    """Convolution without padding, of an image with kernels that it is given."""

    def __init__(self, out_channel: int, kernel_size: int | tuple[int, int]):
        self.out_channel, self.kernel_size = out_channel, kernel_size

    def __call__(self, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return functional.conv2d(x, weight)


class BiasAdd:
    """Addition of one number per channel."""

    def __call__(self, x: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        return x + bias.reshape(1, -1, 1, 1)
