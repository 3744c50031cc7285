"""Non-maximum suppression on NumPy arrays: the result of the plain greedy algorithm in a fraction
of its time.
"""

from dataclasses import dataclass

import numpy as np

from mindyolo_ext.errors import UsageError

_BLOCK = 256  # candidates per block; smaller ones need more calls, larger ones more pairs


@dataclass(frozen=True)
class NMSOptions:
    """Options of non-maximum suppression, for ``nms`` and ``batched_nms``.

    Args:
        conf_thres: scores must be strictly greater than this, in 0..1.
        iou_thres: a box is suppressed if its IoU with a better kept box is strictly greater than
            this, in 0..1.
        max_detections: at most this many boxes per image are kept.
        max_candidates: at most this many of the best candidates enter NMS.
        multi_label: False uses only the best class of a box, True every class above ``conf_thres``.
        class_agnostic: True lets boxes of different classes suppress one another.
        classes: indices of the classes that are kept; None keeps all. A box whose best class is
            another one is dropped, it does not change its class.

    Raises: UsageError for a value outside these rules.
    Source: the defaults are those of the Yolo-FastestV2 evaluation (conf 0.01, IoU 0.4).
    """

    conf_thres: float = 0.01
    iou_thres: float = 0.4
    max_detections: int = 300
    max_candidates: int = 30000
    multi_label: bool = False
    class_agnostic: bool = False
    classes: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        for name, value in (("conf_thres", self.conf_thres), ("iou_thres", self.iou_thres)):
            if not 0.0 <= value <= 1.0:
                raise UsageError(f"NMSOptions: {name} must be in 0..1, got {value!r}")
        for name, value in (
            ("max_detections", self.max_detections),
            ("max_candidates", self.max_candidates),
        ):
            if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
                raise UsageError(f"NMSOptions: {name} must be a positive integer, got {value!r}")


def nms(boxes: np.ndarray, scores: np.ndarray, options: NMSOptions) -> np.ndarray:
    """Return the detections of one image: boxes that do not overlap a better one of their class.

    Equal scores keep the order of their rows (then of their classes). A candidate with a score or a
    coordinate that is not finite is dropped.

    Args:
        boxes: xyxy, pixels of the network input.
        scores: final confidences per class.

    Shape: boxes (A, 4), scores (A, K) -> (N, 6) float32 x1, y1, x2, y2, score, class; falling
        score.
    Raises: ValueError for other shapes.
    Source: Yolo-FastestV2 ``utils/utils.py`` ``non_max_suppression`` (single label) and YOLOv5
        (multi label): IoU without +1, in float32. Unlike the original: no time limit that drops the
        remaining images, and classes are compared, whereas the original adds 4096 * class to
        coordinates, which rounds them to 1/32 pixel.
    """
    boxes, scores = _checked(boxes, scores)
    rows, classes, confidences = _candidates(boxes, scores, options)
    order = _best_first(confidences, options.max_candidates)
    rows, classes, confidences = rows[order], classes[order], confidences[order]
    groups = np.zeros_like(classes) if options.class_agnostic else classes
    kept = _greedy(boxes[rows], groups, options.iou_thres, options.max_detections)
    return np.concatenate(
        [boxes[rows[kept]], confidences[kept, None], classes[kept, None].astype(np.float32)], axis=1
    )


def batched_nms(boxes: np.ndarray, scores: np.ndarray, options: NMSOptions) -> list[np.ndarray]:
    """Apply ``nms`` to every image of a batch.

    Shape: boxes (B, A, 4), scores (B, A, K) -> B arrays (N, 6) float32 x1, y1, x2, y2, score,
        class.
    Raises: ValueError for other shapes.
    """
    boxes, scores = np.asarray(boxes), np.asarray(scores)
    if boxes.ndim != 3 or scores.ndim != 3 or len(boxes) != len(scores):
        raise ValueError(
            f"batched_nms: wanted boxes (B, A, 4) and scores (B, A, K), got {boxes.shape} and "
            f"{scores.shape}"
        )
    return [nms(b, s, options) for b, s in zip(boxes, scores)]


def _checked(boxes: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the two arrays as float32. Raises: ValueError for other shapes."""
    boxes, scores = np.asarray(boxes, np.float32), np.asarray(scores, np.float32)
    if (
        boxes.ndim != 2
        or boxes.shape[1] != 4
        or scores.ndim != 2
        or len(scores) != len(boxes)
        or not scores.shape[1]
    ):
        raise ValueError(
            f"nms: wanted boxes (A, 4) and scores (A, K), got {boxes.shape} and {scores.shape}"
        )
    return boxes, scores


def _candidates(
    boxes: np.ndarray, scores: np.ndarray, options: NMSOptions
) -> tuple[np.ndarray, ...]:
    """Return row, class and score (n,) of each finite candidate above the threshold, by row, then
    class.
    """
    threshold = np.float32(options.conf_thres)
    if options.multi_label:
        above = np.flatnonzero(scores > threshold)
        rows, classes = np.divmod(above, scores.shape[1])
        confidences = scores.ravel()[above]
    else:
        best = scores.max(axis=1)  # NaN and infinity win here; such rows are examined below
        if not np.isfinite(best).all():
            scores = np.where(np.isfinite(scores), scores, np.float32(-1))
            best = scores.max(axis=1)
        rows = np.flatnonzero(best > threshold)
        classes, confidences = scores[rows].argmax(axis=1), best[rows]
    fit = np.isfinite(confidences) & np.isfinite(boxes).all(axis=1)[rows]
    if options.classes is not None:
        fit &= np.isin(classes, options.classes)
    if not fit.all():
        rows, classes, confidences = rows[fit], classes[fit], confidences[fit]
    return rows, classes, confidences


def _best_first(confidences: np.ndarray, limit: int) -> np.ndarray:
    """Return the indices of the ``limit`` highest positive scores (n,), falling, equal scores in
    their order.
    """
    # The bits of a positive float32 sort like the number. With the index below them every key is
    # unique, so the fast unstable sort gives the stable order.
    bits = np.ascontiguousarray(confidences, np.float32).view(np.uint32).astype(np.uint64)
    keys = (np.uint64(0xFFFFFFFF) - bits) << np.uint64(32) | np.arange(len(bits), dtype=np.uint64)
    if len(keys) > limit:
        keys = np.partition(keys, limit)[:limit]
    keys.sort()
    return (keys & np.uint64(0xFFFFFFFF)).astype(np.int64)


def _greedy(boxes: np.ndarray, groups: np.ndarray, iou_thres: float, limit: int) -> np.ndarray:
    """Return the indices of the first ``limit`` boxes (n, 4), best first, that no kept better box
    of their group suppresses.

    Works in blocks: first the boxes kept so far suppress, then the boxes of the block suppress each
    other. Stops at the last box that can be kept.
    """
    conflicts = _Conflicts(boxes, groups, iou_thres)
    kept = np.zeros(0, np.int64)
    for start in range(0, len(boxes), _BLOCK):
        block = np.arange(start, min(start + _BLOCK, len(boxes)))
        if len(kept):
            block = block[~conflicts.between(kept, block).any(axis=0)]
        kept = np.concatenate([kept, block[_settle(conflicts.between(block, block))]])
        if len(kept) >= limit:
            break
    return kept[:limit]


def _settle(conflict: np.ndarray) -> np.ndarray:
    """Decide which boxes, best first, the greedy rule keeps, given all conflicts (n, n): bool
    (n,).
    """
    suppresses = np.triu(conflict, 1)  # row better than column
    # A box is dropped if a kept box suppresses it. Repeating that from "all are kept" settles the
    # decisions from the best box downwards, at least one per round, so it ends with the greedy
    # result.
    alive = np.ones(len(conflict), bool)
    while True:
        verdict = ~suppresses[alive].any(axis=0)
        if np.array_equal(verdict, alive):
            return alive
        alive = verdict


class _Conflicts:
    """Finds pairs of boxes (n, 4) of one group (n,) that overlap too much."""

    def __init__(self, boxes: np.ndarray, groups: np.ndarray, iou_thres: float):
        self.x1, self.y1, self.x2, self.y2 = np.ascontiguousarray(boxes.T)
        self.groups = groups.astype(np.int32)
        self.threshold = np.float32(iou_thres)
        with np.errstate(over="ignore", invalid="ignore"):
            self.area = (self.x2 - self.x1) * (self.y2 - self.y1)

    def between(self, i: np.ndarray, j: np.ndarray) -> np.ndarray:
        """Return conflicts, bool (len(i), len(j)); the IoU of two empty boxes is NaN, which is no
        conflict.
        """
        left = i[:, None]
        with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
            width = np.minimum(self.x2[left], self.x2[j]) - np.maximum(self.x1[left], self.x1[j])
            height = np.minimum(self.y2[left], self.y2[j]) - np.maximum(self.y1[left], self.y1[j])
            overlap = np.maximum(width, 0) * np.maximum(height, 0)
            iou = overlap / (self.area[left] + self.area[j] - overlap)
        return (iou > self.threshold) & (self.groups[left] == self.groups[j])
