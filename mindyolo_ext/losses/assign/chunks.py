"""Split a batch into chunks for an assigner: it compares every box with every prediction, and its
memory should not grow with the batch.
"""

from mindyolo_ext.backend import ops

MOST_PAIRS = 2**24  # pairs of boxes and predictions: a tensor of 64 MiB in float32


@ops.constexpr
def chunks(
    images: int, boxes: int, predictions: int, most_pairs: int
) -> tuple[tuple[int, int], ...]:
    """Return the first image of each chunk and the one after its last: the fewest chunks, of nearly
    equal size, with at most ``most_pairs`` pairs or one image each.
    """
    most = max(1, most_pairs // (boxes * predictions))
    count = -(-images // most)
    ends = [images * number // count for number in range(count + 1)]
    return tuple(zip(ends, ends[1:], strict=False))
