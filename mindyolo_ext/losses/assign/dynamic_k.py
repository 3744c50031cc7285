"""Last steps of SimOTA and OTA: how many predictions a box takes, and which box gets a prediction
that several boxes select.
"""

from mindyolo_ext.backend import Tensor, float32, int32, ops
from mindyolo_ext.losses.assign.robust import first_largest, largest
from mindyolo_ext.losses.pairs import of_predictions

MOST = 10  # number of best overlaps to sum, and maximum number of predictions per box
EXCLUDED = 1e9  # cost of a pair that cannot match, above every real one


def dynamic_k(iou: Tensor, candidate: Tensor) -> Tensor:
    """Return how many predictions each box takes: the whole part of the sum of its best overlaps,
    at least 1. Shape: (B, M, C) and 0/1 (B, C) -> (B, M) int.
    """
    _, count, predictions = iou.shape
    overlaps, _ = largest(iou * of_predictions(candidate, count), min(MOST, predictions))
    return ops.cast(ops.maximum(ops.sum(overlaps, 2), 1.0), int32)


def cheapest(cost: Tensor, number: Tensor, *, first_of_equal: bool) -> tuple[Tensor, Tensor]:
    """Give every box its cheapest predictions; one that several boxes take goes to the box for
    which it is cheapest.

    Pairs that cost half of ``EXCLUDED`` or more, or NaN, never match.

    Args:
        cost, number: see below.
        first_of_equal: take the first of equal costs if a box cannot take them all; otherwise the
            device chooses, which is faster.

    Shape: costs (B, M, C), how many a box takes (B, M) int, at most ``MOST`` -> matched (B, C)
        float 0/1 and number of the box (B, C) int, 0 where nothing is matched.
    """
    batch, count, predictions = cost.shape
    chosen = min(MOST, predictions)
    cost = ops.where(cost < 0.5 * EXCLUDED, cost, EXCLUDED)
    number = ops.expand_dims(ops.minimum(number, chosen), 2)
    if first_of_equal:
        taken, places = first_largest(-cost, number, chosen, above=-0.5 * EXCLUDED)
    else:
        prices, places = largest(-cost, chosen)  # (B, M, 10)
        ranks = ops.reshape(ops.arange(chosen, dtype=int32), (1, 1, chosen))
        taken = ops.cast(ops.logical_and(ranks < number, prices > -0.5 * EXCLUDED), float32)
    images = ops.reshape(ops.arange(batch, dtype=int32), (batch, 1, 1)) * predictions
    places = ops.reshape(places + images, (-1,))
    boxes = ops.cast(ops.reshape(ops.arange(count, dtype=int32), (1, count, 1)), float32)
    takers = ops.unsorted_segment_sum(ops.reshape(taken, (-1,)), places, batch * predictions)
    taker = ops.unsorted_segment_sum(ops.reshape(taken * boxes, (-1,)), places, batch * predictions)
    best = ops.cast(ops.reshape(ops.argmin(cost, 1), (-1,)), float32)
    several = ops.cast(takers > 1.5, float32)
    matched = ops.minimum(takers, 1.0)
    box = (taker * (1.0 - several) + best * several) * matched
    return ops.reshape(matched, (batch, predictions)), ops.reshape(
        ops.cast(box, int32), (batch, predictions)
    )
