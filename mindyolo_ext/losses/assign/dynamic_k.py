"""The last steps that SimOTA and OTA share: how many predictions a box takes, and who gets one
that several want.
"""

from mindyolo_ext.backend import Tensor, float32, int32, ops

MOST = 10  # overlaps that tell how many predictions a box takes, and the most it takes
EXCLUDED = 1e9  # cost of a pair that cannot match, above every real one


def dynamic_k(iou: Tensor, candidate: Tensor) -> Tensor:
    """Whole part of the sum of a box's best overlaps, at least 1: (B, M, C) and 0/1 (B, C) ->
    (B, M) int.
    """
    overlaps, _ = ops.topk(iou * ops.expand_dims(candidate, 1), min(MOST, iou.shape[2]), -1)
    return ops.cast(ops.maximum(ops.sum(overlaps, 2), 1.0), int32)


def cheapest(cost: Tensor, number: Tensor, *, first_of_equal: bool) -> tuple[Tensor, Tensor]:
    """Every box takes its cheapest predictions; one that several take goes to the box for which it
    is cheapest.

    Pairs that cost half of ``EXCLUDED`` or more never match.

    Args:
        cost, number: see below.
        first_of_equal: a box that may take only some of several equal costs takes the first ones;
            otherwise the device chooses, which is cheaper.

    Shape: costs (B, M, C), how many a box takes (B, M) int, at most ``MOST`` -> matched (B, C)
        float 0/1 and number of the box (B, C) int, 0 where nothing is matched.
    """
    batch, count, predictions = cost.shape
    chosen = min(MOST, predictions)
    prices, places = ops.topk(-cost, chosen, -1)  # (B, M, 10)
    ranks = ops.reshape(ops.arange(chosen, dtype=int32), (1, 1, chosen))
    number = ops.expand_dims(ops.minimum(number, chosen), 2)
    if first_of_equal:
        taken, places = _first_of_equal(cost, number, (ranks, prices, places))
    else:
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


def _first_of_equal(
    cost: Tensor, number: Tensor, found: tuple[Tensor, Tensor, Tensor]
) -> tuple[Tensor, Tensor]:
    """Whether each of 20 places is taken, (B, M, 20) float 0/1, and the places.

    Which of equal prices come first is up to the device, so those equal to the last one taken are
    looked up by their place. Slots that are not taken name some place.

    Args:
        cost, number: as in ``cheapest``, ``number`` (B, M, 1).
        found: ranks (1, 1, 10), and prices and places (B, M, 10), the largest prices first.
    """
    ranks, prices, places = found
    chosen, predictions = ranks.shape[2], cost.shape[2]
    # of the last one taken
    limit = ops.sum(prices * ops.cast(ranks == number - 1, float32), 2, True)
    limit = ops.maximum(limit, -0.5 * EXCLUDED)
    below = ops.cast(prices > limit, float32)
    later = ops.reshape(ops.cast(ops.arange(predictions, 0, -1), float32), (1, 1, -1))
    keys, _ = ops.topk(ops.cast(ops.equal(-cost, limit), float32) * later, chosen, -1)
    missing = ops.cast(number, float32) - ops.sum(below, 2, True)
    equal = ops.logical_and(ops.cast(ranks, float32) < missing, keys > 0.5)
    taken = ops.cat((below, ops.cast(equal, float32)), 2)
    return taken, ops.cat((places, predictions - ops.cast(ops.maximum(keys, 1.0), int32)), 2)
