"""Detect that a network seems to number its classes differently from the data set."""

from collections.abc import Sequence

import numpy as np
from scipy.optimize import linear_sum_assignment

_IOU = 0.5
_FOUND = 0.8  # lowest share of the objects that another numbering must explain
_RIGHT = 0.1  # highest share that may have the right class as it is


def exchanged_classes(
    detections: Sequence[np.ndarray], truth: Sequence[np.ndarray], num_classes: int
) -> dict[int, int]:
    """Map labels of the data set to the labels that the network gives these objects, for classes
    that another numbering would correct; empty if the numbering is plausible.

    Only clear cases count: the network finds most objects, nearly all under a wrong class, and one
    permutation of the classes makes them right.

    Args:
        detections: per image (N, 6) x1, y1, x2, y2 in photo pixels, score, class.
        truth: per image the objects (M, 5) label, x1, y1, x2, y2, without ignored ones.
    """
    seen = np.zeros((num_classes, num_classes), np.int64)  # data set's label, network's label
    objects = 0
    for found, targets in zip(detections, truth, strict=True):
        objects += len(targets)
        for target in targets:
            near = found[_overlaps(target[1:], found[:, :4]) > _IOU]
            if len(near):
                seen[int(target[0]), int(near[near[:, 4].argmax(), 5])] += 1
    labels, numbers = linear_sum_assignment(-seen)
    explained = seen[labels, numbers].sum()
    if not explained or explained < _FOUND * objects or np.trace(seen) > _RIGHT * explained:
        return {}
    return {
        int(label): int(number)
        for label, number in zip(labels, numbers, strict=True)
        if label != number and seen[label, number]
    }


def _overlaps(box: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Compute the IoU (N,) of one box with others (N, 4), xyxy."""
    sides = np.minimum(box[2:], boxes[:, 2:]) - np.maximum(box[:2], boxes[:, :2])
    common = np.clip(sides, 0, None).prod(axis=1)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1) + (box[2:] - box[:2]).prod()
    return common / np.maximum(areas - common, 1e-9)
