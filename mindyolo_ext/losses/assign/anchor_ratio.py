"""Assign boxes to anchors by the ratio of their sides, in a box's own cell and the nearest
neighbors.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from mindyolo_ext.backend import Tensor, float32, int32, nn, ops
from mindyolo_ext.losses.assign.robust import finite_targets

COPIES = 5  # own cell, left, up, right, down


class Assignment(NamedTuple):
    """Names for the results of ``AnchorRatioAssigner``: the candidates of one level for T = B * M
    boxes, with the image as the slowest axis.

    Graphs pass plain tuples; outside of them, ``Assignment(*assigner(...))`` names the parts.

    Shapes: ``matched`` (5, a, T) float 0/1, copies in the order own, left, up, right, down;
    ``image`` and ``label`` (T,) int; ``cell_x`` and ``cell_y`` (5, T) int, inside the grid;
    ``offset_x`` and ``offset_y`` (5, T), box center minus cell; ``width`` and ``height`` (T,).
    Lengths are in cells.
    """

    matched: Tensor
    image: Tensor
    label: Tensor
    cell_x: Tensor
    cell_y: Tensor
    offset_x: Tensor
    offset_y: Tensor
    width: Tensor
    height: Tensor


class AnchorRatioAssigner(nn.Cell):
    """Match the boxes of a batch with the anchors of one level.

    A box and an anchor match if neither side differs by ``ratio_threshold`` or more. A match counts
    in the cell of the box center and in those horizontal and vertical neighbors whose border is
    less than half a cell away and that lie inside the grid. Several boxes may share a cell and an
    anchor. A box with a coordinate that is not finite matches nothing.

    Args:
        anchors: (width, height) of the level's anchors in pixels.
        stride: pixels per cell.
        ratio_threshold: a match needs ratios of both sides below this.

    Shape: targets (B, M, 5) class, cx, cy, w, h in 0..1; mask (B, M) 0/1; grid height and width in
        cells -> the parts of ``Assignment`` as a tuple; no tensor carries a gradient.
    Source: Yolo-FastestV2 ``utils/loss.py`` (after YOLOv5). Unlike the original, ratios are
        compared in float32 instead of float64, and as products, which avoids a division by zero for
        a box without area.
    """

    def __init__(self, anchors: Sequence[Sequence[float]], stride: int, ratio_threshold: float):
        super().__init__()
        sides = np.asarray(anchors, np.float64) / stride
        self.anchor_width = Tensor(sides[:, 0:1], float32)  # (a, 1)
        self.anchor_height = Tensor(sides[:, 1:2], float32)
        self.ratio_threshold = ratio_threshold
        self.shift_x = Tensor([[0.0], [0.5], [0.0], [-0.5], [0.0]], float32)  # (5, 1)
        self.shift_y = Tensor([[0.0], [0.0], [0.5], [0.0], [-0.5]], float32)

    def construct(
        self, targets: Tensor, mask: Tensor, grid_height: int, grid_width: int
    ) -> tuple[Tensor, ...]:
        batch, boxes = mask.shape
        targets, mask = finite_targets(targets, mask)
        columns = ops.transpose(ops.reshape(targets, (batch * boxes, 5)), (1, 0))  # (5, T)
        label, x, y, width, height = ops.unbind(columns, 0)
        x, y, width, height = (
            x * grid_width,
            y * grid_height,
            width * grid_width,
            height * grid_height,
        )
        image = ops.broadcast_to(ops.reshape(ops.arange(batch), (batch, 1)), (batch, boxes))
        near = self._near(x, y, grid_height, grid_width) * ops.reshape(mask, (1, -1))  # (5, T)
        matched = ops.expand_dims(near, 1) * self._similar(width, height)  # (5, a, T)
        cell_x = ops.clamp(ops.floor(x - self.shift_x), 0, grid_width - 1)
        cell_y = ops.clamp(ops.floor(y - self.shift_y), 0, grid_height - 1)
        found = (
            matched,
            ops.cast(ops.reshape(image, (-1,)), int32),
            ops.cast(label, int32),
            ops.cast(cell_x, int32),
            ops.cast(cell_y, int32),
            x - cell_x,
            y - cell_y,
            width,
            height,
        )
        return tuple(ops.stop_gradient(value) for value in found)

    def _near(self, x: Tensor, y: Tensor, grid_height: int, grid_width: int) -> Tensor:
        """Whether a box counts for each copy, (5, T) float 0/1."""
        copies = (ops.ones_like(x),) + tuple(
            ops.cast(ops.logical_and(way - ops.floor(way) < 0.5, way > 1), float32)
            for way in (x, y, grid_width - x, grid_height - y)
        )
        return ops.stack(copies, 0)

    def _similar(self, width: Tensor, height: Tensor) -> Tensor:
        """Whether box and anchor have similar sides, (a, T) float 0/1."""
        limit = self.ratio_threshold
        wide = ops.logical_and(width < self.anchor_width * limit, self.anchor_width < width * limit)
        high = ops.logical_and(
            height < self.anchor_height * limit, self.anchor_height < height * limit
        )
        return ops.cast(ops.logical_and(wide, high), float32)
