"""Match detections with objects by COCO's rule at one IoU, and find overlapping pairs. Uses NumPy
and pycocotools.
"""

from dataclasses import dataclass, field

import numpy as np
from pycocotools import mask

from mindyolo_ext.evaluation.columns import Found, Truth

MATCH_IOU = 0.5
_LEAST_IOU = 0.1  # pairs below it are not considered
_MOST = 100  # detections of a category that COCO evaluates per image
_LARGEST = 1e10  # pixels; the limit of COCO's "all sizes"


@dataclass(frozen=True)
class Pairs:
    """Overlapping detections and objects of the same image, of any categories.

    Args:
        found, truth: (p,) row of the detection and of the object.
        iou: (p,) at least 0.1; for a crowd region, the share of the detection that lies on it.
        same: (p,) whether both have the same category.
    """

    found: np.ndarray
    truth: np.ndarray
    iou: np.ndarray
    same: np.ndarray


@dataclass(frozen=True)
class Matches:
    """Ground truth and detections with COCO's matches at IoU 0.5, objects of all sizes.

    Args:
        partner: (n,) the object that each detection matches, -1 for none.
        counted: (n,) whether COCO counts the detection: not on a crowd region, not beyond 100 of
            its category in its image, and with an area in 0..1e10 unless it matches an object.
        order: (n,) rows of the detections by falling score, those of equal score by image.
    """

    truth: Truth
    found: Found
    pairs: Pairs = field(repr=False)
    partner: np.ndarray = field(repr=False)
    counted: np.ndarray = field(repr=False)
    order: np.ndarray = field(repr=False)

    @property
    def hit(self) -> np.ndarray:
        """(n,) whether each detection matches an object that counts."""
        return self.counted & (self.partner >= 0)

    def of_category(self, position: int) -> np.ndarray:
        """Return the rows of the counted detections of a category, by falling score."""
        rows = self.order[self.found.category[self.order] == position]
        return rows[self.counted[rows]]


def match(truth: Truth, found: Found) -> Matches:
    """Compute COCO's matches at IoU 0.5.

    By falling score, each detection takes the free object of its category that it overlaps most, or
    else a crowd region. Equal scores keep their order.

    Source: pycocotools ``cocoeval.py`` ``evaluateImg``; ``mask.iou`` is its own.
    """
    pairs = overlaps(truth, found)
    order = np.lexsort((found.image, -found.score))  # stable: rows of an image keep their order
    rank = _ranks(found, order)
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    near = np.flatnonzero(pairs.same & (pairs.iou >= MATCH_IOU) & (rank[pairs.found] < _MOST))
    keys = (
        -pairs.truth[near],  # of two with equal IoU, COCO takes the later one
        -pairs.iou[near],
        truth.crowd[pairs.truth[near]],
        place[pairs.found[near]],
    )
    near = near[np.lexsort(keys)]
    partner = _chosen(pairs, near, truth.crowd, len(order))
    on_crowd = np.append(truth.crowd, False)[partner]
    area = found.xywh[:, 2] * found.xywh[:, 3]
    is_odd = (partner < 0) & ((area < 0) | (area > _LARGEST))
    return Matches(truth, found, pairs, partner, (rank < _MOST) & ~on_crowd & ~is_odd, order)


def _chosen(pairs: Pairs, rows: np.ndarray, crowd: np.ndarray, count: int) -> np.ndarray:
    """Assign an object to each of ``count`` detections, from the pairs in the order of
    preference.
    """
    partner, taken = [-1] * count, [False] * len(crowd)
    is_crowd = crowd.tolist()
    for detection, target in zip(pairs.found[rows].tolist(), pairs.truth[rows].tolist()):
        if partner[detection] < 0 and not taken[target]:
            partner[detection] = target
            taken[target] = not is_crowd[target]
    return np.array(partner, np.int64)


def _ranks(found: Found, order: np.ndarray) -> np.ndarray:
    """Count, for each detection, the better ones of its category in its image, (n,)."""
    group = found.image * (int(found.category.max(initial=0)) + 1) + found.category
    rows = order[np.argsort(group[order], kind="stable")]
    groups = group[rows]
    first = np.concatenate([[True], groups[1:] != groups[:-1]])[: len(rows)]
    starts = np.maximum.accumulate(np.where(first, np.arange(len(rows)), 0))
    rank = np.empty(len(rows), np.int64)
    rank[rows] = np.arange(len(rows)) - starts
    return rank


def overlaps(truth: Truth, found: Found) -> Pairs:
    """Find all pairs of a detection and an object of one image with an IoU of at least 0.1."""
    images = len(truth.image_ids)
    truth_rows, truth_ends = _by_image(truth.image, images)
    found_rows, found_ends = _by_image(found.image, images)
    parts = []
    for image in np.flatnonzero((np.diff(truth_ends) > 0) & (np.diff(found_ends) > 0)).tolist():
        targets = truth_rows[truth_ends[image] : truth_ends[image + 1]]
        detections = found_rows[found_ends[image] : found_ends[image + 1]]
        iou = mask.iou(
            found.xywh[detections], truth.xywh[targets], truth.crowd[targets].astype(np.uint8)
        )
        row, column = np.nonzero(iou >= _LEAST_IOU)
        parts.append((detections[row], targets[column], iou[row, column]))
    empty = (np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))
    first, second, iou = (np.concatenate(column) for column in zip(empty, *parts))
    return Pairs(first, second, iou, found.category[first] == truth.category[second])


def _by_image(image: np.ndarray, images: int) -> tuple[np.ndarray, np.ndarray]:
    """Sort rows by image, and return where each image's rows begin (images + 1,)."""
    rows = np.argsort(image, kind="stable")
    return rows, np.searchsorted(image[rows], np.arange(images + 1))
