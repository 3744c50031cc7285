"""Matched rows of DynamicDet's losses as the original lists them."""
from collections.abc import Sequence

import mindspore
import numpy as np

from mindyolo_ext.backend import nn


class MatchedRows(nn.Cell):
    """What ``trainable.rows`` finds for the detectors in use, from targets, mask and the model's raw maps."""

    def __init__(self, trainable: nn.Cell):
        super().__init__(auto_prefix=False)
        self.trainable = trainable

    def construct(self, targets, mask, *maps):
        own = self.trainable
        return own.rows(own.maps_of(maps), own.for_detectors(targets), own.for_detectors(mask))[:4]


def rows_by_level(found: Sequence[mindspore.Tensor], targets: np.ndarray,
                  sizes: Sequence[tuple[int, int]]) -> list[list[np.ndarray]]:
    """Of every detector and level the rows (n, 10): image, anchor, gy, gx, then image, class, cx, cy, w, h.

    Args:
        found: matched, box, floats and integers of ``MatchedRows``.
        targets: (B, M, 5).
        sizes: (height, width) of every level's map.
    """
    matched, box, _, integers = (part.asnumpy() for part in found)
    firsts = np.cumsum([0] + [3 * height * width for height, width in sizes])
    batch, detectors = len(targets), []
    for begin in range(0, len(matched), batch):
        image, place = np.nonzero(matched[begin:begin + batch])
        row, own = integers[0, begin + image, place], targets[image, box[begin + image, place]]
        levels = []
        for level, (height, width) in enumerate(sizes):
            here = (row >= firsts[level]) & (row < firsts[level + 1])
            inside = np.unravel_index(row[here] - firsts[level], (3, height, width))
            levels.append(np.column_stack((image[here], *inside, image[here], own[here])).astype(np.float32))
        detectors.append(levels)
    return detectors
