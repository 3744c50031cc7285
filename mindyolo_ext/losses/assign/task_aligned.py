"""Task-aligned assignment: each box takes the predictions inside it with the best product of score
and overlap.
"""

from mindyolo_ext.backend import Tensor, float32, int32, nn, ops
from mindyolo_ext.losses.assign.lookup import rows_of_classes
from mindyolo_ext.losses.assign.robust import filled, finite, first_largest
from mindyolo_ext.losses.iou import Box, pairwise_iou
from mindyolo_ext.losses.pairs import of_boxes, of_predictions

EPS = 1e-9

Points = tuple[Tensor, Tensor]


class TaskAlignedAssigner(nn.Cell):
    """Match the boxes of a batch with the predictions of all levels.

    The metric of a pair is the score of the box's class times the sixth power of the IoU. A box
    takes the ``topk`` predictions with the largest metric whose point lies inside it. A prediction
    that several boxes take goes to the box of its image that it overlaps most, even if that box did
    not take it. Ties go to the first prediction and the first box. The target score of a match is
    its metric over the largest metric of its box, times the largest IoU of its box. A prediction
    that is not finite matches nothing.

    Args:
        topk: predictions per box.

    Shape: scores (B, K, A), probabilities; predicted boxes, four corner coordinates (B, A); points
        x, y (A,); wanted class and four corner coordinates, each (B, M); mask (B, M) 0/1 -> matched
        (B, A) float 0/1, number of the box (B, A) int, target score (B, A), 0 where nothing
        matches. Lengths in pixels; no tensor carries a gradient.
    Source: TOOD, arXiv:2108.07755; Gold-YOLO ``yolov6/assigners/tal_assigner.py`` with its
        exponents 1 and 6. Unlike the original, boxes are float32 instead of float64.
    """

    def __init__(self, topk: int):
        super().__init__()
        self.topk = topk

    def construct(
        self, scores: Tensor, boxes: Box, points: Points, wanted: tuple[Tensor, ...], mask: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        corners = wanted[1:]
        usable = finite(*boxes, ops.sum(scores, 1))
        # a box without area has no overlap
        boxes = filled(usable, boxes, 0.0)
        count, predictions = mask.shape[1], usable.shape[1]
        iou = pairwise_iou(corners, boxes) * of_boxes(mask, predictions)  # (B, M, A)
        squared = iou * iou
        metric = rows_of_classes(scores, wanted[0]) * (squared * squared * squared)
        ways = [ops.tile(ops.reshape(way, (1, 1, -1)), (*mask.shape, 1)) for way in points]
        inside = inside_box(corners, tuple(ways)) * of_predictions(usable, count)
        ranked = ops.where(inside > 0.5, metric, ops.full_like(metric, 0.0))
        most = min(self.topk, predictions)
        number = ops.full((*mask.shape, 1), most, dtype=int32)
        taken, places = first_largest(ranked, number, most)  # (B, M, 2 * topk)
        taken = taken * ops.gather_elements(inside, 2, places) * ops.expand_dims(mask, 2)
        matched, index = settle(places, taken, iou, mask)
        own_metric, own_iou = filled(matched, (at_box(metric, index), at_box(iou, index)), 0.0)
        best_metric, best_iou = (
            _largest_of_box(own, index, count) for own in (own_metric, own_iou)
        )
        score = own_metric * best_iou / (best_metric + EPS)
        return ops.stop_gradient(matched), ops.stop_gradient(index), ops.stop_gradient(score)


def inside_box(corners: Box, points: Points) -> Tensor:
    """Test whether points lie inside boxes, float 0/1.

    Shape: coordinates (B, M); of points (B, M, k) -> (B, M, k).
    """
    x, y = points
    x1, y1, x2, y2 = (of_boxes(part, x.shape[2]) for part in corners)
    return ops.cast(
        ops.minimum(ops.minimum(x - x1, x2 - x), ops.minimum(y - y1, y2 - y)) > EPS, float32
    )


def settle(places: Tensor, taken: Tensor, iou: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Decide on one box per prediction: the box that took it or, if several did, the box of the
    image with the largest overlap.

    Shape: places of candidates (B, M, k) int; taken (B, M, k) float 0/1; iou (B, M, A); mask (B, M)
        -> matched (B, A) float 0/1, number of the box (B, A) int, 0 where nothing matches.
    """
    batch, count, predictions = iou.shape
    images = ops.reshape(ops.arange(batch, dtype=int32), (batch, 1, 1)) * predictions
    flat = ops.reshape(ops.cast(places, int32) + images, (-1,))
    numbers = ops.cast(ops.reshape(ops.arange(count, dtype=int32), (1, count, 1)), float32)
    takers = ops.unsorted_segment_sum(ops.reshape(taken, (-1,)), flat, batch * predictions)
    taker = ops.unsorted_segment_sum(ops.reshape(taken * numbers, (-1,)), flat, batch * predictions)
    nearest = ops.argmax(iou + of_boxes(mask - 1.0, predictions), 1)  # never a padded box
    several = ops.cast(takers > 1.5, float32)
    box = taker * (1.0 - several) + ops.cast(ops.reshape(nearest, (-1,)), float32) * several
    matched = ops.cast(takers > 0.5, float32)
    return ops.reshape(matched, (batch, predictions)), ops.reshape(
        ops.cast(box, int32), (batch, predictions)
    )


def at_box(pairs: Tensor, index: Tensor) -> Tensor:
    """Select the entry of every prediction's box: (B, M, A) and (B, A) int -> (B, A)."""
    return ops.squeeze(ops.gather_elements(pairs, 1, ops.expand_dims(index, 1)), 1)


def _largest_of_box(values: Tensor, index: Tensor, count: int) -> Tensor:
    """Return, for every prediction, the largest value among the predictions of the same box, (B,
    A).
    """
    batch = values.shape[0]
    rows = ops.reshape(
        ops.reshape(ops.arange(batch, dtype=int32), (batch, 1)) * count + index, (-1,)
    )
    largest = ops.unsorted_segment_max(ops.reshape(values, (-1,)), rows, batch * count)
    return ops.reshape(ops.gather(largest, rows, 0), values.shape)
