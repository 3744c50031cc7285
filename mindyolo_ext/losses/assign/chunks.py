"""How many images an assigner looks at together: it compares every box with every prediction, and
what it holds of that should not grow with the batch.
"""

from mindyolo_ext.backend import ops

MOST_PAIRS = 2**24  # of boxes and predictions: a tensor of 64 MiB in float32


@ops.constexpr
def chunks(
    images: int, boxes: int, predictions: int, most_pairs: int
) -> tuple[tuple[int, int], ...]:
    """First image of each chunk of a batch and the one after its last: as few chunks as hold at
    most ``most_pairs`` pairs each, or one image, and as even as they can be.
    """
    most = max(1, most_pairs // (boxes * predictions))
    count = -(-images // most)
    ends = [images * number // count for number in range(count + 1)]
    return tuple(zip(ends, ends[1:], strict=False))
