"""Yolo-FastestV2's own metric, by which its 24.1 % were published. Uses NumPy only.

It is more lenient than PASCAL VOC's: a detection is matched with the label that overlaps it most,
whatever that label's class, as long as its own class occurs somewhere in the image. Use it only to
compare with numbers of that project.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from tabulate import tabulate

from mindyolo_ext.evaluation.collect import checked_detections


@dataclass(frozen=True)
class DarknetClass:
    """Counts and scores of one class that occurs in the labels; all scores in 0..1."""

    label: int
    num_targets: int
    num_detections: int
    precision: float
    recall: float
    ap: float
    f1: float


@dataclass(frozen=True)
class DarknetResult:
    """Means over the classes that occur in the labels (0 if there are none), and their components.

    Args:
        precision, recall, f1: at the last detection of each class, that is, for all given
            detections.
        ap: area under the precision-recall curve.
        per_class: by rising class index.
        true_positives: per image a bool (N,) in the order of its detections.
    """

    precision: float
    recall: float
    ap: float
    f1: float
    num_images: int
    per_class: list[DarknetClass]
    true_positives: list[np.ndarray] = field(repr=False)

    def table(self, class_names: Sequence[str] | None = None) -> str:
        """Format the scores in percent, per class and on average, as text."""
        rows = [
            [class_names[c.label] if class_names else str(c.label), c.num_targets, c.num_detections]
            + [100 * v for v in (c.precision, c.recall, c.ap, c.f1)]
            for c in self.per_class
        ]
        rows.append(
            [
                "mean",
                sum(c.num_targets for c in self.per_class),
                sum(len(flags) for flags in self.true_positives),
            ]
            + [100 * v for v in (self.precision, self.recall, self.ap, self.f1)]
        )
        return tabulate(
            rows,
            ["class", "targets", "detections", "precision", "recall", "AP50", "F1"],
            floatfmt=".2f",
            disable_numparse=[0],
        )


def evaluate_darknet(
    detections: Sequence[np.ndarray], targets: Sequence[np.ndarray], *, iou_thres: float = 0.5
) -> DarknetResult:
    """Compute mean precision, recall, AP and F1 of a set of images by the rules of Yolo-FastestV2.

    Args:
        detections: per image, x1, y1, x2, y2, score, class; by falling score as ``nms`` gives them.
        targets: per image, class, x1, y1, x2, y2 in the same frame.
        iou_thres: lowest IoU of a true positive.

    Shape: B arrays (N, 6), B arrays (n, 5).
    Raises: ValueError for other shapes or different numbers of images.
    Source: Yolo-FastestV2 ``utils/utils.py`` ``evaluation``. Unlike the original: equal scores keep
        their order (its sort is not stable), and a set without labels gives zeros instead of NaN.
    """
    if len(detections) != len(targets):
        raise ValueError(
            f"evaluate_darknet: {len(detections)} images of detections, {len(targets)} of targets"
        )
    detections = [checked_detections(d) for d in detections]
    targets = [_checked_targets(t) for t in targets]
    flags = [_true_positives(d, t, iou_thres) for d, t in zip(detections, targets)]
    if not targets:
        return DarknetResult(0.0, 0.0, 0.0, 0.0, 0, [], [])
    stacked = np.concatenate(detections)
    order = np.argsort(-stacked[:, 4], kind="stable")
    hits, classes = np.concatenate(flags)[order], stacked[order, 5]
    labels = np.concatenate([t[:, 0] for t in targets])
    per_class = [
        _score_class(int(label), hits[classes == label], int((labels == label).sum()))
        for label in np.unique(labels)
    ]
    columns = [[c.precision, c.recall, c.ap, c.f1] for c in per_class] or [[0.0] * 4]
    precision, recall, ap, f1 = np.mean(columns, axis=0).tolist()
    return DarknetResult(precision, recall, ap, f1, len(targets), per_class, flags)


def _checked_targets(targets: np.ndarray) -> np.ndarray:
    """The array as float32 (n, 5), or ValueError."""
    targets = np.asarray(targets, np.float32)
    if targets.ndim != 2 or targets.shape[1] != 5:
        raise ValueError(
            f"evaluate_darknet: wanted targets (n, 5) class, x1, y1, x2, y2, got {targets.shape}"
        )
    return targets


def _true_positives(detections: np.ndarray, targets: np.ndarray, iou_thres: float) -> np.ndarray:
    """Decide whether each detection (N, 6) of an image matches a free target (n, 5): bool (N,)."""
    hits = np.zeros(len(detections), bool)
    if not len(detections) or not len(targets):
        return hits
    iou = _inclusive_iou(detections[:, :4], targets[:, 1:])  # (N, n)
    nearest, known = iou.argmax(axis=1), np.isin(detections[:, 5], targets[:, 0])
    enough = iou[np.arange(len(iou)), nearest] >= iou_thres
    taken: set[int] = set()
    # As in the original: the class of the nearest target is not compared with the detection's
    # class.
    for index in np.flatnonzero(known & enough):
        if nearest[index] not in taken:
            hits[index] = True
            taken.add(int(nearest[index]))
    return hits


def _inclusive_iou(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """IoU (N, n) of boxes (N, 4) and (n, 4) whose last pixel counts: each side is one longer."""
    left, right = boxes[:, None], others[None]
    sides = (
        np.minimum(left[..., 2:], right[..., 2:]) - np.maximum(left[..., :2], right[..., :2]) + 1
    )
    overlap = np.maximum(sides, 0).prod(axis=2)
    area = (
        (left[..., 2:] - left[..., :2] + 1).prod(axis=2),
        (right[..., 2:] - right[..., :2] + 1).prod(axis=2),
    )
    return overlap / (area[0] + area[1] - overlap + np.float32(1e-16))


def _score_class(label: int, hits: np.ndarray, num_targets: int) -> DarknetClass:
    """Scores of one class from its hits (n,) by falling score."""
    if not len(hits):
        return DarknetClass(label, num_targets, 0, 0.0, 0.0, 0.0, 0.0)
    true = np.cumsum(hits.astype(np.float64))
    recall, precision = true / (num_targets + 1e-16), true / np.arange(1, len(hits) + 1)
    last_p, last_r = float(precision[-1]), float(recall[-1])
    f1 = 2 * last_p * last_r / (last_p + last_r + 1e-16)
    return DarknetClass(
        label, num_targets, len(hits), last_p, last_r, _area_under(recall, precision), f1
    )


def _area_under(recall: np.ndarray, precision: np.ndarray) -> float:
    """Area under the monotone envelope of a precision-recall curve, summed at every change of
    recall.
    """
    recall = np.concatenate([[0.0], recall, [1.0]])
    envelope = np.maximum.accumulate(np.concatenate([precision, [0.0]])[::-1])[::-1]
    return float(np.sum(np.diff(recall) * envelope))
