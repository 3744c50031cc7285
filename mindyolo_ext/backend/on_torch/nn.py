"""``Cell`` and the layers in use, on ``torch.nn``.

Layers have MindSpore's names of arguments, attributes and parameters, and PyTorch's computation.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from mindyolo_ext.backend.on_torch.device import device
from mindyolo_ext.backend.on_torch.recording import is_recording, is_traced
from mindyolo_ext.backend.on_torch.values import Parameter
from mindyolo_ext.backend.on_torch.windows import max_pool
from mindyolo_ext.errors import ConfigError

_watched: weakref.WeakSet[Cell] = weakref.WeakSet()  # cells that have or had a hook


class Cell(torch.nn.Module):
    """Part of a network; ``construct`` is its forward pass, which records nothing for derivatives
    except inside ``recording``.

    Args:
        auto_prefix: whether parameter names of a child start with its path.
    """

    def __init__(self, auto_prefix: bool = True):
        super().__init__()
        object.__setattr__(self, "_auto_prefix", auto_prefix)
        self.training = False
        self.own_dtype: torch.dtype | None = None
        # contexts of the first and the second pass, if derivatives recompute the cell
        self.recompute_contexts: Callable[[], tuple[AbstractContextManager, ...]] | None = None

    def __call__(self, *inputs: Any, **keywords: Any) -> Any:
        if is_recording() and self.recompute_contexts is not None and torch.is_grad_enabled():
            return checkpoint(
                super().__call__,
                *inputs,
                use_reentrant=False,
                context_fn=self.recompute_contexts,
                **keywords,
            )
        if is_recording() or not torch.is_grad_enabled():
            return super().__call__(*inputs, **keywords)
        with torch.no_grad():
            return super().__call__(*inputs, **keywords)

    def forward(self, *inputs: Any, **keywords: Any) -> Any:
        """Run ``construct``; PyTorch calls this method."""
        if self.own_dtype is not None:
            inputs = self.in_own_dtype(*inputs)
        return self.construct(*inputs, **keywords)

    def to_float(self, dst_type: torch.dtype) -> Cell:
        """Compute in ``dst_type`` in this cell and all cells below. Return the cell."""
        for _, cell in self.cells_and_names():
            cell.own_dtype = dst_type
        return self

    def in_own_dtype(self, *tensors: torch.Tensor | None) -> tuple[torch.Tensor | None, ...]:
        """Convert the tensors to the type of ``to_float``."""
        if self.own_dtype is None:
            return tensors
        return tuple(None if x is None else x.to(self.own_dtype) for x in tensors)

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if isinstance(value, Parameter):
            value.name = value.name or name
        elif isinstance(value, Cell) and self._auto_prefix:
            value.prefix_names(name)

    def prefix_names(self, place: str) -> None:
        """Prefix the names of all parameters with ``place``."""
        for parameter in self.parameters():
            parameter.name = f"{place}.{parameter.name}"

    def register_forward_hook(self, *arguments: Any, **keywords: Any) -> Any:
        """Call a function with every output; outputs are not overwritten while it is registered."""
        _watched.add(self)
        return super().register_forward_hook(*arguments, **keywords)

    def insert_child_to_cell(self, name: str, child: Cell) -> None:
        """Set ``child`` as the child ``name``."""
        setattr(self, name, child)

    def name_cells(self) -> dict[str, Cell]:
        """Return the children by name."""
        return {name: child for name, child in self._modules.items() if child is not None}

    def cells(self) -> Iterable[Cell]:
        """Return the children."""
        return self.name_cells().values()

    def cells_and_names(self) -> Iterator[tuple[str, Cell]]:
        """Yield the cell itself under an empty name, and every cell below it once, by path."""
        return self.named_modules()

    def parameters_and_names(self) -> Iterator[tuple[str, Parameter]]:
        """Yield every parameter once, by path: a cell's own first, then those of its children."""
        return self.named_parameters()

    def get_parameters(self) -> Iterator[Parameter]:
        """Return every parameter once."""
        return self.parameters()

    def trainable_params(self) -> list[Parameter]:
        """Return the parameters that training changes."""
        return [parameter for parameter in self.parameters() if parameter.requires_grad]

    def set_train(self, mode: bool = True) -> Cell:
        """Use batch statistics, or stored ones if ``mode`` is False. Return the cell."""
        return self.train(mode)


class _Cells(Cell):
    """Children named 0, 1, 2 ..."""

    def __init__(self, cells: Iterable[Cell], auto_prefix: bool = True):
        super().__init__(auto_prefix)
        for cell in cells:
            self.append(cell)

    def append(self, cell: Cell) -> None:
        """Add a child at the end."""
        setattr(self, str(len(self)), cell)

    def __len__(self) -> int:
        return len(self._modules)

    def __iter__(self) -> Iterator[Cell]:
        return iter(self._modules.values())

    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return type(self)(list(self._modules.values())[index])
        return list(self._modules.values())[index]

    def __setitem__(self, index: int, cell: Cell) -> None:
        setattr(self, list(self._modules)[index], cell)


class CellList(_Cells):
    """A list of children."""

    def __init__(self, cells: Iterable[Cell] = (), auto_prefix: bool = True):
        super().__init__(cells, auto_prefix)


class SequentialCell(_Cells):
    """Children that run in sequence, given as arguments or as a list."""

    def __init__(self, *cells: Any):
        super().__init__(cells[0] if len(cells) == 1 and isinstance(cells[0], list) else cells)

    def construct(self, x: torch.Tensor) -> torch.Tensor:
        for cell in self._modules.values():
            x = cell(x)
        return x


class Conv2d(Cell):
    """Convolution; ``weight`` (out_channels, in_channels / group, height, width) and ``bias``.

    Args:
        pad_mode: ``pad`` by ``padding`` on every side, ``valid`` for no padding, or ``same`` to
            keep the size, for stride 1 and odd kernels.
        weight_init, bias_init: initial values; by default PyTorch's.

    Raises: ValueError for another padding, or ``same`` with another stride or an even kernel.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        pad_mode: str = "same",
        *,
        padding: int = 0,
        dilation: int | tuple[int, int] = 1,
        group: int = 1,
        has_bias: bool = False,
        weight_init: torch.Tensor | None = None,
        bias_init: torch.Tensor | None = None,
    ):
        super().__init__()
        if in_channels % group or out_channels % group:
            raise ValueError(
                f"Conv2d: {in_channels} and {out_channels} channels in {group} groups, wanted "
                "multiples"
            )
        self.in_channels, self.out_channels = in_channels, out_channels
        self.kernel_size, self.stride = _pair(kernel_size), _pair(stride)
        self.dilation = _pair(dilation)
        self.pad_mode, self.padding = pad_mode, padding
        self.border = _border("Conv2d", self.kernel_size, self.stride, (pad_mode, padding))
        self.group, self.has_bias = group, has_bias
        self.channels_last = False
        shape = (out_channels, in_channels // group, *self.kernel_size)
        fan_in = math.prod(shape[1:])
        self.weight = Parameter(_drawn(shape, fan_in) if weight_init is None else weight_init)
        self.bias = None
        if has_bias:
            first = _drawn((out_channels,), fan_in) if bias_init is None else bias_init
            self.bias = Parameter(first)

    def construct(self, x: torch.Tensor) -> torch.Tensor:
        if self.channels_last:
            x = x.contiguous(memory_format=torch.channels_last)
        weight, bias = self.in_own_dtype(self.weight, self.bias)
        return functional.conv2d(
            x, weight, bias, self.stride, self.border, self.dilation, self.group
        )


class Dense(Cell):
    """Fully connected layer; ``weight`` (out_channels, in_channels) and ``bias``."""

    def __init__(self, in_channels: int, out_channels: int, *, has_bias: bool = True):
        super().__init__()
        self.in_channels, self.out_channels, self.has_bias = in_channels, out_channels, has_bias
        self.weight = Parameter(_drawn((out_channels, in_channels), in_channels))
        self.bias = Parameter(_drawn((out_channels,), in_channels)) if has_bias else None

    def construct(self, x: torch.Tensor) -> torch.Tensor:
        return functional.linear(x, *self.in_own_dtype(self.weight, self.bias))


class BatchNorm2d(Cell):
    """Batch normalization.

    Args:
        momentum: share of the old statistics that is kept. As in MindSpore, the attribute of this
            name holds 1 minus this share.

    ``use_batch_statistics`` None uses batch statistics in training and stored ones in inference,
    False always uses stored ones. Without ``updates_statistics`` batch statistics are not stored.

    Raises: ConfigError, when called, for one value per channel, which has no variance.
    """

    def __init__(self, num_features: int, eps: float = 1e-5, momentum: float = 0.9):
        super().__init__()
        self.num_features, self.eps, self.momentum = num_features, eps, 1.0 - momentum
        self.use_batch_statistics: bool | None = None
        self.updates_statistics = True
        zeros = torch.zeros(num_features, device=device())
        ones = torch.ones(num_features, device=device())
        self.moving_mean = Parameter(zeros, requires_grad=False)
        self.moving_variance = Parameter(ones, requires_grad=False)
        self.gamma = Parameter(ones)
        self.beta = Parameter(zeros)

    def construct(self, x: torch.Tensor) -> torch.Tensor:
        of_batch = self.use_batch_statistics
        of_batch = self.training if of_batch is None else of_batch
        if of_batch and x.numel() == x.shape[1]:
            raise ConfigError(
                f"batch norm: one value per channel, of shape {tuple(x.shape)}, has no variance; "
                "use a larger train.per_batch_size or input.size, or set train.freeze_bn"
            )
        stored = (self.moving_mean, self.moving_variance)
        if of_batch and not self.updates_statistics:
            stored = tuple(values.clone() for values in stored)
        return functional.batch_norm(
            x, *stored, self.gamma, self.beta, of_batch, self.momentum, self.eps
        )


class MaxPool2d(Cell):
    """Maxima over windows. Raises: ValueError as ``Conv2d``."""

    def __init__(
        self,
        kernel_size: int | tuple[int, int] = 1,
        stride: int | tuple[int, int] = 1,
        pad_mode: str = "valid",
        padding: int = 0,
    ):
        super().__init__()
        self.kernel_size, self.stride = kernel_size, stride
        self.pad_mode, self.padding = pad_mode, padding
        self.border = _border("MaxPool2d", _pair(kernel_size), _pair(stride), (pad_mode, padding))

    def construct(self, x: torch.Tensor) -> torch.Tensor:
        return max_pool(x, _pair(self.kernel_size), _pair(self.stride), self.border)


class Identity(Cell):
    """Return the input."""

    def construct(self, x: torch.Tensor) -> torch.Tensor:
        return x


class _Activation(Cell):
    """Activation that may compute in place if nothing else reads its input (``layers.activation``).

    ``keeps_input``: the derivative needs the input, so it is not overwritten while recording.
    """

    reads_alone = False
    keeps_input = False

    def overwrites(self) -> bool:
        """Whether to compute in place: not while an export or a compilation traces, and not if a
        hook may keep the input.
        """
        return (
            self.reads_alone
            and not (self.keeps_input and torch.is_grad_enabled())
            and not is_traced()
            and not any(cell._forward_hooks for cell in _watched)
        )


class ReLU(_Activation):
    """Activation."""

    def construct(self, x: torch.Tensor) -> torch.Tensor:
        return functional.relu(x, inplace=self.overwrites())


class ReLU6(_Activation):
    """Activation."""

    def construct(self, x: torch.Tensor) -> torch.Tensor:
        return functional.relu6(x, inplace=self.overwrites())


class SiLU(_Activation):
    """Activation."""

    keeps_input = True

    def construct(self, x: torch.Tensor) -> torch.Tensor:
        return functional.silu(x, inplace=self.overwrites())


class SeLU(Cell):
    """Activation."""

    def construct(self, x: torch.Tensor) -> torch.Tensor:
        return functional.selu(x)


class HSwish(Cell):
    """Activation."""

    def construct(self, x: torch.Tensor) -> torch.Tensor:
        return functional.hardswish(x)


class Hardtanh(Cell):
    """Activation."""

    def construct(self, x: torch.Tensor) -> torch.Tensor:
        return functional.hardtanh(x)


class Sigmoid(Cell):
    """Activation."""

    def construct(self, x: torch.Tensor) -> torch.Tensor:
        return torch.sigmoid(x)


class Tanh(Cell):
    """Activation."""

    def construct(self, x: torch.Tensor) -> torch.Tensor:
        return torch.tanh(x)


class LeakyReLU(_Activation):
    """Activation."""

    def __init__(self, alpha: float = 0.2):
        super().__init__()
        self.alpha = alpha

    def construct(self, x: torch.Tensor) -> torch.Tensor:
        return functional.leaky_relu(x, self.alpha, inplace=self.overwrites())


class ELU(Cell):
    """Activation."""

    def __init__(self, alpha: float = 1.0):
        super().__init__()
        self.alpha = alpha

    def construct(self, x: torch.Tensor) -> torch.Tensor:
        return functional.elu(x, self.alpha)


class CELU(Cell):
    """Activation."""

    def __init__(self, alpha: float = 1.0):
        super().__init__()
        self.alpha = alpha

    def construct(self, x: torch.Tensor) -> torch.Tensor:
        return functional.celu(x, self.alpha)


class GELU(Cell):
    """Activation; ``approximate`` for the form with the hyperbolic tangent."""

    def __init__(self, approximate: bool = True):
        super().__init__()
        self.approximate = approximate

    def construct(self, x: torch.Tensor) -> torch.Tensor:
        return functional.gelu(x, approximate="tanh" if self.approximate else "none")


def _drawn(shape: tuple[int, ...], fan_in: int) -> torch.Tensor:
    """Initialize uniformly within 1 / sqrt(``fan_in``)."""
    bound = 1.0 / math.sqrt(fan_in)
    return torch.empty(shape, device=device()).uniform_(-bound, bound)


def _pair(value: int | tuple[int, int]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else tuple(value)


def _border(
    layer: str, kernel_size: tuple[int, int], stride: tuple[int, int], wanted: tuple[str, int]
) -> tuple[int, int]:
    """Return the rows and columns of padding on each side."""
    pad_mode, padding = wanted
    if pad_mode == "pad":
        return padding, padding
    if pad_mode == "valid" or kernel_size == (1, 1):
        return 0, 0
    if pad_mode != "same":
        raise ValueError(f"{layer}: pad_mode must be pad, valid or same, got {pad_mode!r}")
    if stride != (1, 1) or any(side % 2 == 0 for side in kernel_size):
        raise ValueError(
            f"{layer}: pad_mode same is for odd kernels at stride 1, got {kernel_size} at {stride}"
        )
    return kernel_size[0] // 2, kernel_size[1] // 2
