"""Compute the overlap of boxes, pair by pair, on separate coordinate tensors.

A box argument is a tuple of four tensors x1, y1, x2, y2 (in ``center_iou`` cx, cy, w, h) that
broadcast against those of the other box; slicing one (..., 4) tensor costs more than the overlap
itself. Coordinates may be pixels or grid units. ``eps`` is added to every denominator.
"""

import math

from mindyolo_ext.backend import Tensor, ops
from mindyolo_ext.losses.pairs import of_boxes, of_predictions

Box = tuple[Tensor, Tensor, Tensor, Tensor]


def box_from_center(center_x: Tensor, center_y: Tensor, width: Tensor, height: Tensor) -> Box:
    """Convert center and size to the corners x1, y1, x2, y2."""
    half_width, half_height = width * 0.5, height * 0.5
    return (
        center_x - half_width,
        center_y - half_height,
        center_x + half_width,
        center_y + half_height,
    )


def iou(first: Box, second: Box, eps: float = 1e-16) -> Tensor:
    """Compute the intersection over union, 0..1."""
    return _iou_and_union(first, second, eps)[0]


def center_iou(first: Box, second: Box, eps: float = 1e-16) -> Tensor:
    """Compute the intersection over union of boxes given as cx, cy, w, h; areas stay exact for
    large coordinates.
    """
    x, y, width, height = first
    other_x, other_y, other_width, other_height = second
    x1, y1, x2, y2 = box_from_center(x, y, width, height)
    other_x1, other_y1, other_x2, other_y2 = box_from_center(
        other_x, other_y, other_width, other_height
    )
    inter = ops.relu(ops.minimum(x2, other_x2) - ops.maximum(x1, other_x1)) * ops.relu(
        ops.minimum(y2, other_y2) - ops.maximum(y1, other_y1)
    )
    return inter / (width * height + other_width * other_height - inter + eps)


def giou(first: Box, second: Box, eps: float = 1e-16) -> Tensor:
    """Compute GIoU: IoU minus the share of the enclosing box outside the union, -1..1. Source:
    arXiv:1902.09630.
    """
    overlap, union = _iou_and_union(first, second, eps)
    width, height = _enclosing_size(first, second)
    area = width * height + eps
    return overlap - (area - union) / area


def diou(first: Box, second: Box, eps: float = 1e-16) -> Tensor:
    """Compute DIoU: IoU minus squared center distance over squared diagonal of the enclosing box.

    Source: arXiv:1911.08287.
    """
    return iou(first, second, eps) - _center_distance(first, second, eps)


def ciou(first: Box, second: Box, eps: float = 1e-16, *, added_height: float = 0.0) -> Tensor:
    """Compute CIoU: DIoU minus a penalty for aspect ratios, whose weight carries no gradient.

    Args:
        added_height: added to the height of boxes in areas and aspect ratios. Detectors of the
            YOLOv7 line add ``eps``, which matters for boxes with almost no height.

    Source: arXiv:1911.08287. Unlike the originals, ``eps`` also guards the weight, which would be
    0 / 0 for equal boxes.
    """
    overlap = _iou_and_union(first, second, eps, added_height)[0]
    eps_of_ratio = added_height + eps
    angle = ops.atan((second[2] - second[0]) / (second[3] - second[1] + eps_of_ratio)) - ops.atan(
        (first[2] - first[0]) / (first[3] - first[1] + eps_of_ratio)
    )
    aspect = angle * angle * (4.0 / math.pi**2)
    weight = ops.stop_gradient(aspect / (1.0 - overlap + aspect + eps))
    return overlap - (_center_distance(first, second, eps) + aspect * weight)


def siou(first: Box, second: Box, eps: float = 1e-10) -> Tensor:
    """Compute SIoU: IoU minus half the sum of a distance cost, weighted by the angle between the
    centers, and a shape cost.

    At least one box of each pair must have a positive width and height.
    Source: arXiv:2205.12740 as Gold-YOLO's ``yolov6/utils/figure_iou.py`` computes it. Its sine of
    twice the angle, ``cos(2 asin(a) - pi / 2)``, is ``2 |x| |y| / (x * x + y * y)`` here, which is
    the same and has no branch.
    """
    overlap = iou(first, second, eps)
    across = (second[0] + second[2] - first[0] - first[2]) * 0.5 + eps
    down = (second[1] + second[3] - first[1] - first[3]) * 0.5 + eps
    squares = across * across, down * down
    exponent = 2.0 * ops.abs(across * down) / (squares[0] + squares[1]) - 2.0
    distance, shape = 2.0, 0.0
    for side, (offset, enclosing) in enumerate(zip(squares, _enclosing_size(first, second))):
        distance = distance - ops.exp(exponent * offset / (enclosing * enclosing))
        length = first[side + 2] - first[side] + eps * side
        # As in the original: eps only on the heights
        other = second[side + 2] - second[side] + eps * side
        unlike = 1.0 - ops.exp(-ops.abs(length - other) / ops.maximum(length, other))
        shape = shape + unlike * unlike * unlike * unlike
    return overlap - 0.5 * (distance + shape)


def pairwise_iou(rows: Box, columns: Box, eps: float = 1e-9) -> Tensor:
    """Compute the IoU of every box of ``rows`` with every box of ``columns``; a box with swapped
    corners has no area.

    Shape: coordinates (B, M) and (B, A) -> (B, M, A).
    """
    count, others = rows[0].shape[1], columns[0].shape[1]
    # Minimum and maximum of tiled tensors take a tenth of the time that broadcasting takes
    x1, y1, x2, y2 = (of_boxes(part, others) for part in rows)
    other_x1, other_y1, other_x2, other_y2 = (of_predictions(part, count) for part in columns)
    inter = ops.relu(ops.minimum(x2, other_x2) - ops.maximum(x1, other_x1)) * ops.relu(
        ops.minimum(y2, other_y2) - ops.maximum(y1, other_y1)
    )
    area = of_boxes(_positive_area(rows), others)
    other_area = of_predictions(_positive_area(columns), count)
    return inter / (area + other_area - inter + eps)


def _positive_area(box: Box) -> Tensor:
    """Compute the area, 0 for swapped corners."""
    return ops.relu(box[2] - box[0]) * ops.relu(box[3] - box[1])


def _iou_and_union(
    first: Box, second: Box, eps: float, added_height: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Compute IoU and area of the union; ``added_height`` is added to the boxes' heights in their
    areas.
    """
    x1, y1, x2, y2 = first
    other_x1, other_y1, other_x2, other_y2 = second
    inter = ops.relu(ops.minimum(x2, other_x2) - ops.maximum(x1, other_x1)) * ops.relu(
        ops.minimum(y2, other_y2) - ops.maximum(y1, other_y1)
    )
    height, other_height = y2 - y1, other_y2 - other_y1
    if added_height > 0.0:
        height, other_height = height + added_height, other_height + added_height
    union = (x2 - x1) * height + eps + (other_x2 - other_x1) * other_height - inter
    return inter / union, union


def _enclosing_size(first: Box, second: Box) -> tuple[Tensor, Tensor]:
    """Compute width and height of the smallest box around both."""
    return (
        ops.maximum(first[2], second[2]) - ops.minimum(first[0], second[0]),
        ops.maximum(first[3], second[3]) - ops.minimum(first[1], second[1]),
    )


def _center_distance(first: Box, second: Box, eps: float) -> Tensor:
    """Compute the squared center distance over the squared diagonal of the enclosing box."""
    width, height = _enclosing_size(first, second)
    across = second[0] + second[2] - first[0] - first[2]
    down = second[1] + second[3] - first[1] - first[3]
    return (across * across + down * down) * 0.25 / (width * width + height * height + eps)
