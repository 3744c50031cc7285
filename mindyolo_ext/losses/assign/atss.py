"""ATSS: each box takes the predictions near its center whose anchor squares overlap it by more than
a threshold that is computed per box.
"""

from mindyolo_ext.backend import Tensor, float32, int32, nn, ops
from mindyolo_ext.losses.assign.robust import filled, finite, first_largest
from mindyolo_ext.losses.assign.task_aligned import at_box, inside_box, settle
from mindyolo_ext.losses.iou import Box, pairwise_iou
from mindyolo_ext.losses.pairs import of_boxes

SIDE = 5.0  # side of the anchor squares, in strides

# stride of every prediction (A,), predictions of each level
Levels = tuple[Tensor, tuple[int, ...]]


class ATSSAssigner(nn.Cell):
    """Match the boxes of a batch with the predictions of all levels.

    On each level, the candidates of a box are the ``topk`` predictions whose points are nearest to
    its center. Squares with a side of five strides lie around these points, and the threshold is
    the mean plus the standard deviation of their overlaps with the box. The box takes the
    candidates above the threshold whose point lies inside it. A prediction that several boxes take
    goes to the box of its image that its square overlaps most. Ties go to the first prediction and
    the first box. The target score of a match is the IoU of the box and the predicted box. A
    prediction whose box is not finite matches nothing.

    Args:
        topk: candidates per level.

    Shape: predicted boxes, four corner coordinates (B, A); points x, y (A,); stride (A,) and number
        of predictions of each level; wanted class and four corner coordinates, each (B, M); mask
        (B, M) 0/1 -> matched (B, A) float 0/1, number of the box (B, A) int, target score (B, A), 0
        where nothing matches. Lengths in pixels; no tensor carries a gradient.
    Source: arXiv:1912.02424; Gold-YOLO ``yolov6/assigners/atss_assigner.py``. Unlike the original,
        boxes are float32 instead of float64.
    """

    def __init__(self, topk: int = 9):
        super().__init__()
        self.topk = topk

    def construct(
        self,
        boxes: Box,
        points: tuple[Tensor, Tensor],
        levels: Levels,
        wanted: tuple[Tensor, ...],
        mask: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        corners, (x, y), (stride, sizes) = wanted[1:], points, levels
        half, shape = stride * (0.5 * SIDE), (mask.shape[0], 1)
        squares = tuple(
            ops.tile(ops.expand_dims(part, 0), shape)
            for part in (x - half, y - half, x + half, y + half)
        )
        iou = pairwise_iou(corners, squares) * of_boxes(mask, x.shape[0])  # (B, M, A)
        chosen, places = self._nearest(corners, points, sizes)  # (B, M, 2 * candidates)
        overlap = ops.gather_elements(iou, 2, places)
        candidates = places.shape[2] // 2
        mean = ops.sum(overlap * chosen, 2, True) / candidates
        off = (overlap - mean) * chosen
        deviation = ops.sqrt(ops.sum(off * off, 2, True) / (candidates - 1))
        inside = inside_box(corners, (ops.gather(x, places, 0), ops.gather(y, places, 0)))
        taken = ops.cast(overlap > mean + deviation, float32) * chosen * inside
        matched, index = settle(places, taken * ops.expand_dims(mask, 2), iou, mask)
        usable = finite(*boxes)
        matched, index = matched * usable, index * ops.cast(usable, int32)
        score = at_box(pairwise_iou(corners, filled(usable, boxes, 0.0)), index) * matched
        return ops.stop_gradient(matched), ops.stop_gradient(index), ops.stop_gradient(score)

    def _nearest(
        self, corners: Box, points: tuple[Tensor, Tensor], sizes: tuple[int, ...]
    ) -> tuple[Tensor, Tensor]:
        """Find the candidates of all levels: whether each slot is filled, float 0/1, and its place,
        int, both (B, M, 2 * candidates).
        """
        center_x, center_y = ((corners[i] + corners[i + 2]) * 0.5 for i in range(2))
        chosen, places, begin = (), (), 0
        for size in sizes:
            x, y = (
                ops.tile(ops.reshape(way[begin : begin + size], (1, 1, -1)), (*center_x.shape, 1))
                for way in points
            )
            across, down = x - of_boxes(center_x, size), y - of_boxes(center_y, size)
            most = min(self.topk, size)
            number = ops.full((*center_x.shape, 1), most, dtype=int32)
            own, nearest = first_largest(-(across * across + down * down), number, most)
            chosen, places = chosen + (own,), places + (nearest + begin,)
            begin += size
        return ops.cat(chosen, 2), ops.cat(places, 2)
