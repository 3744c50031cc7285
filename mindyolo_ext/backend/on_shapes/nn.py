"""Cells that only hold parameters and children by name, in MindSpore's order."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from mindyolo_ext.backend.on_shapes.values import Parameter, Tensor


class Cell:
    """Part of a network. Parameters and cells that are set as attributes belong to it."""

    _params: dict[str, Parameter]
    _cells: dict[str, Cell]

    def __init__(self, auto_prefix: bool = True):  # noqa: ARG002
        object.__setattr__(self, "_params", {})
        object.__setattr__(self, "_cells", {})
        self.training = False

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, Parameter):
            self._params[name] = value
        elif isinstance(value, Cell):
            self._cells[name] = value
        object.__setattr__(self, name, value)

    def name_cells(self) -> dict[str, Cell]:
        """Return the children by name."""
        return dict(self._cells)

    def cells(self) -> Iterable[Cell]:
        """Return the children."""
        return self._cells.values()

    def cells_and_names(self) -> Iterator[tuple[str, Cell]]:
        """Yield the cell itself under an empty name, and every cell below it once, by path."""
        yield from self._walk("", set())

    def parameters_and_names(self) -> Iterator[tuple[str, Parameter]]:
        """Yield every parameter once, by path: a cell's own first, then those of its children."""
        seen: set[int] = set()
        for place, cell in self.cells_and_names():
            for name, parameter in cell._params.items():
                if id(parameter) not in seen:
                    seen.add(id(parameter))
                    yield f"{place}.{name}" if place else name, parameter

    def get_parameters(self) -> Iterator[Parameter]:
        """Return every parameter once."""
        return (parameter for _, parameter in self.parameters_and_names())

    def trainable_params(self) -> list[Parameter]:
        """Return the parameters that training changes."""
        return [parameter for parameter in self.get_parameters() if parameter.requires_grad]

    def set_train(self, mode: bool = True) -> Cell:
        """Store the mode in this cell and all cells below."""
        for _, cell in self.cells_and_names():
            object.__setattr__(cell, "training", mode)
        return self

    def construct(self, *inputs: Any) -> Any:
        """Raises: NotImplementedError, here and in every cell that calls another."""
        raise NotImplementedError(f"{type(self).__name__}: this backend declares parameters only")

    def __call__(self, *inputs: Any) -> Any:
        return Cell.construct(self, *inputs)

    def _walk(self, place: str, seen: set[int]) -> Iterator[tuple[str, Cell]]:
        if id(self) in seen:
            return
        seen.add(id(self))
        yield place, self
        for name, cell in self._cells.items():
            yield from cell._walk(f"{place}.{name}" if place else name, seen)


class _Cells(Cell):
    """Children named 0, 1, 2 ..."""

    def __init__(self, cells: Iterable[Cell]):
        super().__init__()
        for cell in cells:
            self.append(cell)

    def append(self, cell: Cell) -> None:
        """Add a child at the end."""
        self._cells[str(len(self._cells))] = cell

    def __len__(self) -> int:
        return len(self._cells)

    def __iter__(self) -> Iterator[Cell]:
        return iter(self._cells.values())

    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return type(self)(list(self._cells.values())[index])
        return list(self._cells.values())[index]


class SequentialCell(_Cells):
    """Children that run in sequence, given as arguments or as a list."""

    def __init__(self, *cells: Any):
        super().__init__(cells[0] if len(cells) == 1 and isinstance(cells[0], list) else cells)


class CellList(_Cells):
    """A list of children."""

    def __init__(self, cells: Iterable[Cell] = ()):
        super().__init__(cells)


class Conv2d(Cell):
    """Convolution; ``weight`` (out_channels, in_channels / group, height, width) and ``bias``."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        *,
        pad_mode: str = "same",
        padding: int | tuple[int, ...] = 0,
        dilation: int | tuple[int, int] = 1,
        group: int = 1,
        has_bias: bool = False,
        weight_init: Any = None,  # noqa: ARG002
        bias_init: Any = None,  # noqa: ARG002
    ):
        super().__init__()
        if in_channels % group or out_channels % group:
            raise ValueError(
                f"Conv2d: {in_channels} and {out_channels} channels in {group} groups, wanted "
                "multiples"
            )
        self.in_channels, self.out_channels = in_channels, out_channels
        self.kernel_size, self.stride, self.dilation = map(_pair, (kernel_size, stride, dilation))
        self.pad_mode, self.padding = pad_mode, padding
        self.group, self.has_bias = group, has_bias
        self.weight = _parameter(out_channels, in_channels // group, *self.kernel_size)
        if has_bias:
            self.bias = _parameter(out_channels)


class Dense(Cell):
    """Fully connected layer; ``weight`` (out_channels, in_channels) and ``bias``."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        weight_init: Any = None,  # noqa: ARG002
        bias_init: Any = None,  # noqa: ARG002
        has_bias: bool = True,
    ):
        super().__init__()
        self.in_channels, self.out_channels = in_channels, out_channels
        self.weight = _parameter(out_channels, in_channels)
        if has_bias:
            self.bias = _parameter(out_channels)


class BatchNorm2d(Cell):
    """Batch norm: two statistics that are not trained, then scale and shift."""

    def __init__(self, num_features: int, eps: float = 1e-5, momentum: float = 0.9):
        super().__init__()
        self.num_features, self.eps, self.momentum = num_features, eps, momentum
        self.moving_mean = _parameter(num_features, requires_grad=False)
        self.moving_variance = _parameter(num_features, requires_grad=False)
        self.gamma = _parameter(num_features)
        self.beta = _parameter(num_features)


class MaxPool2d(Cell):
    """Maxima over windows."""

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


class Identity(Cell):
    """Return the input."""


class ReLU(Cell):
    """Activation."""


class ReLU6(Cell):
    """Activation."""


class SiLU(Cell):
    """Activation."""


class SeLU(Cell):
    """Activation."""


class HSwish(Cell):
    """Activation."""


class Hardtanh(Cell):
    """Activation."""


class Sigmoid(Cell):
    """Activation."""


class Tanh(Cell):
    """Activation."""


class LeakyReLU(Cell):
    """Activation."""

    def __init__(self, alpha: float = 0.2):
        super().__init__()
        self.alpha = alpha


class ELU(Cell):
    """Activation."""

    def __init__(self, alpha: float = 1.0):
        super().__init__()
        self.alpha = alpha


class CELU(Cell):
    """Activation."""

    def __init__(self, alpha: float = 1.0):
        super().__init__()
        self.alpha = alpha


class GELU(Cell):
    """Activation."""

    def __init__(self, approximate: bool = True):
        super().__init__()
        self.approximate = approximate


def _parameter(*shape: int, requires_grad: bool = True) -> Parameter:
    """Create a float32 parameter. Raises: ValueError for an axis below 1."""
    if min(shape) < 1:
        raise ValueError(f"a parameter of shape {shape}, wanted axes of at least 1")
    zeros = np.broadcast_to(np.zeros((), np.float32), shape)
    return Parameter(Tensor(zeros), requires_grad=requires_grad)


def _pair(value: int | tuple[int, int]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else value
