"""Positions of the cells of a feature map, as constants of the graph."""

from collections.abc import Sequence

import numpy as np

from mindyolo_ext.backend import Tensor, ops


@ops.constexpr
def cell_numbers(count: int) -> Tensor:
    """Return the indices 0, 1, ... of a map's columns or rows, (count,) float32."""
    return Tensor(np.arange(count, dtype=np.float32))


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
    sizes = tuple((int(height), int(width)) for height, width in sizes)
    strides = tuple(int(stride) for stride in strides)
    return (
        _grid_row(sizes, strides, repeats, 0),
        _grid_row(sizes, strides, repeats, 1),
        _grid_row(sizes, strides, repeats, 2),
    )


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
