"""Positions of the cells of a feature map: constants of the graph if its input has one size."""

from collections.abc import Sequence

import numpy as np

from mindyolo_ext.backend import Tensor, float32, ops
from mindyolo_ext.backend.sizes import in_any_size


@ops.constexpr
def cell_numbers(count: int) -> Tensor:
    """Return the indices 0, 1, ... of a map's columns or rows, (count,) float32."""
    return Tensor(np.arange(count, dtype=np.float32))


def _computed_positions(height: int, width: int) -> Tensor:
    """``cell_positions`` with operators."""
    columns = ops.broadcast_to(ops.reshape(ops.arange(width), (1, width)), (height, width))
    rows = ops.broadcast_to(ops.reshape(ops.arange(height), (height, 1)), (height, width))
    return ops.cast(ops.reshape(ops.stack((columns, rows)), (2, height * width)), float32)


@in_any_size(_computed_positions)
@ops.constexpr
def cell_positions(height: int, width: int) -> Tensor:
    """Return column and row of each cell, row by row, (2, height * width) float32."""
    rows, columns = np.indices((height, width)).reshape(2, -1)
    return Tensor(np.stack((columns, rows)).astype(np.float32))


def cell_grid(
    sizes: Sequence[tuple[int, int]], strides: Sequence[int], repeats: int = 1
) -> tuple[Tensor, Tensor, Tensor]:
    """Return column and row of each prediction's cell, and its stride in pixels.

    Args:
        sizes: (height, width) of each level in cells.
        strides: pixels per cell of each level.
        repeats: predictions per cell; all cells of a level are repeated this many times.

    Shape: -> three times (A,) float32; levels in order, cells row by row.
    """
    sizes = tuple((height, width) for height, width in sizes)
    strides = tuple(int(stride) for stride in strides)
    return (
        _grid_row(sizes, strides, repeats, 0),
        _grid_row(sizes, strides, repeats, 1),
        _grid_row(sizes, strides, repeats, 2),
    )


def _computed_row(
    sizes: tuple[tuple[int, int], ...], strides: tuple[int, ...], repeats: int, which: int
) -> Tensor:
    """``_grid_row`` with operators."""
    parts = []
    for (height, width), stride in zip(sizes, strides):
        columns, rows = ops.unbind(_computed_positions(height, width))
        parts += [(columns, rows, ops.full_like(rows, float(stride)))[which]] * repeats
    return ops.cat(parts)


@in_any_size(_computed_row)
@ops.constexpr
def _grid_row(
    sizes: tuple[tuple[int, int], ...], strides: tuple[int, ...], repeats: int, which: int
) -> Tensor:
    """Build one of the three results of ``cell_grid``."""
    parts = []
    for (height, width), stride in zip(sizes, strides):
        rows, columns = np.indices((height, width)).reshape(2, -1)
        parts.append(np.tile((columns, rows, np.full_like(rows, stride))[which], repeats))
    return Tensor(np.concatenate(parts).astype(np.float32))
