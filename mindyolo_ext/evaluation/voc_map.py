"""Average precision at IoU 0.5 by the two rules of the PASCAL VOC challenges. Uses NumPy only."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from tabulate import tabulate

from mindyolo_ext.errors import UsageError
from mindyolo_ext.evaluation.collect import checked_detections


@dataclass(frozen=True)
class VocClass:
    """Counts and scores of one class; scores in 0..1, NaN if no object of it counts.

    Args:
        num_ground_truth: objects that count, that is, without difficult ones.
        num_detections: detections that count, that is, without those on difficult objects.
        ap07: mean precision at the recalls 0, 0.1, ... 1 (VOC 2007).
        ap: area under the precision envelope (VOC 2010 and later).
    """

    name: str
    num_ground_truth: int
    num_difficult: int
    num_detections: int
    ap07: float
    ap: float


@dataclass(frozen=True)
class VocResult:
    """Means over the classes with ground truth, NaN if there are none, and the classes by rising
    label.
    """

    ap07: float
    ap: float
    num_images: int
    per_class: list[VocClass]

    def table(self) -> str:
        """Format AP50 by both rules, per class and on average, in percent, as text."""
        rows = [
            [
                c.name,
                str(c.num_ground_truth),
                str(c.num_difficult),
                str(c.num_detections),
                _percent(c.ap07),
                _percent(c.ap),
            ]
            for c in self.per_class
        ]
        totals = [
            str(sum(column))
            for column in zip(
                *((c.num_ground_truth, c.num_difficult, c.num_detections) for c in self.per_class)
            )
        ]
        rows.append(["mean", *(totals or ["0"] * 3), _percent(self.ap07), _percent(self.ap)])
        return tabulate(
            rows,
            ["class", "boxes", "difficult", "detections", "AP50, VOC07 11-point", "AP50, VOC area"],
            disable_numparse=True,
            colalign=("left", *["right"] * 5),
        )


def _percent(value: float) -> str:
    """Format 0.1234 as 12.34, and a missing number as a dash."""
    return "-" if math.isnan(value) else f"{100 * value:.2f}"


def evaluate_voc(
    detections: Sequence[np.ndarray],
    targets: Sequence[np.ndarray],
    class_names: Sequence[str],
    *,
    difficult: Sequence[np.ndarray] | None = None,
    iou_thres: float = 0.5,
) -> VocResult:
    """Compute VOC's average precision of a set of images.

    By falling score over all images, each detection is compared with the object of its class that
    it overlaps most. It is a false positive if the overlap is too small or a better detection has
    taken the object. It is ignored if the object is difficult.

    Args:
        detections: per image x1, y1, x2, y2, score, class; equal scores keep the order of images
            and rows.
        targets: per image, class, x1, y1, x2, y2 in the same coordinates, where pixel i reaches
            from i to i + 1.
        class_names: a name per class.
        difficult: per image, which targets are difficult and do not count, bool; None: all targets
            count.
        iou_thres: lowest IoU of a true positive, above 0.

    Shape: B arrays (N, 6), B arrays (n, 5), B arrays (n,).
    Raises: ValueError for other shapes, different numbers of images, classes without a name,
        numbers that are not finite, or ``iou_thres`` outside 0..1.
    Source: VOCdevkit, ``VOCevaldet.m`` (2007 and 2010), where an IoU equal to ``iou_thres`` is
        enough; ports to Python often require more. The devkit adds 1 to the sides of boxes whose
        corners are whole pixels counted from 1; here such a box is x1 - 1, y1 - 1, x2, y2, of the
        same size, so the plain IoU is the devkit's. Unlike the original: recall levels are compared
        as whole numbers (there 0.3 is not reached by 3 objects of 10).
    """
    found, truth, hard = _checked(detections, targets, class_names, difficult)
    if not 0 < iou_thres <= 1:
        raise UsageError(f"evaluate_voc: iou_thres must be above 0 and at most 1, got {iou_thres}")
    overlap, nearest = _nearest_objects(found, truth)
    rows, objects = (
        np.concatenate([np.zeros((0, 6)), *found]),
        np.concatenate([np.zeros((0, 5)), *truth]),
    )
    order = np.argsort(-rows[:, 4], kind="stable")
    classes, overlap, nearest = rows[order, 5], overlap[order], nearest[order]
    near = np.flatnonzero(overlap >= iou_thres)
    on_difficult = np.zeros(len(rows), bool)
    on_difficult[near] = hard[nearest[near]]
    hits = np.zeros(len(rows), bool)
    # the best detection of each object
    hits[near[np.unique(nearest[near], return_index=True)[1]]] = True
    per_class = []
    for label, name in enumerate(class_names):
        own, its = objects[:, 0] == label, (classes == label) & ~on_difficult
        count = int((own & ~hard).sum())
        per_class.append(
            VocClass(
                name,
                count,
                int((own & hard).sum()),
                int(its.sum()),
                *_average_precisions(hits[its], count),
            )
        )
    scores = [(c.ap07, c.ap) for c in per_class if c.num_ground_truth] or [(math.nan, math.nan)]
    ap07, ap = np.mean(scores, axis=0).tolist()
    return VocResult(ap07, ap, len(found), per_class)


def _checked(
    detections: Sequence[np.ndarray],
    targets: Sequence[np.ndarray],
    class_names: Sequence[str],
    difficult: Sequence[np.ndarray] | None,
) -> tuple[list[np.ndarray], list[np.ndarray], np.ndarray]:
    """Return detections (N, 6) and targets (n, 5) of each image, and whether each target is
    difficult (sum of n,).
    """
    if not len(detections) == len(targets) == len(targets if difficult is None else difficult):
        raise ValueError(
            f"evaluate_voc: {len(detections)} images of detections, {len(targets)} of targets"
            + ("" if difficult is None else f", {len(difficult)} of difficult")
        )
    found = [checked_detections(d).astype(np.float64) for d in detections]
    truth = [np.asarray(t, np.float64) for t in targets]
    hard = (
        [np.zeros(len(t), bool) for t in truth]
        if difficult is None
        else [np.asarray(h, bool) for h in difficult]
    )
    for image, (its, boxes, flags) in enumerate(zip(found, truth, hard)):
        if boxes.ndim != 2 or boxes.shape[1] != 5 or flags.shape != boxes.shape[:1]:
            raise ValueError(
                f"evaluate_voc: image {image}: wanted targets (n, 5) class, x1, y1, x2, y2 and "
                f"difficult (n,), got {boxes.shape} and {flags.shape}"
            )
        if not (np.isfinite(its).all() and np.isfinite(boxes).all()):
            raise ValueError(f"evaluate_voc: image {image}: wanted finite numbers")
        labels = np.concatenate([its[:, 5], boxes[:, 0]])
        if not np.isin(labels, np.arange(len(class_names))).all():
            raise ValueError(
                f"evaluate_voc: image {image}: classes {labels.min():g}..{labels.max():g}, but "
                f"{len(class_names)} class names"
            )
    return found, truth, np.concatenate([np.zeros(0, bool), *hard])


def _nearest_objects(
    found: list[np.ndarray], truth: list[np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Find, for each detection of all images, the largest IoU with an object of its class and that
    object's number.
    """
    overlaps, numbers, first = [np.zeros(0)], [np.zeros(0, np.int64)], 0
    for its, boxes in zip(found, truth):
        if len(boxes):
            # (N, n)
            iou = np.where(its[:, 5, None] == boxes[:, 0], _iou(its[:, :4], boxes[:, 1:]), 0.0)
            best = iou.argmax(axis=1)
            overlaps.append(iou[np.arange(len(its)), best])
            numbers.append(first + best)
        else:
            overlaps.append(np.zeros(len(its)))
            numbers.append(np.zeros(len(its), np.int64))
        first += len(boxes)
    return np.concatenate(overlaps), np.concatenate(numbers)


def _iou(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """IoU (N, n) of boxes (N, 4) and (n, 4); inverted boxes overlap nothing."""
    left, right = boxes[:, None], others[None]
    sides = np.minimum(left[..., 2:], right[..., 2:]) - np.maximum(left[..., :2], right[..., :2])
    overlap = np.maximum(sides, 0).prod(axis=2)
    union = (
        (left[..., 2:] - left[..., :2]).prod(axis=2)
        + (right[..., 2:] - right[..., :2]).prod(axis=2)
        - overlap
    )
    return np.divide(overlap, union, out=np.zeros_like(overlap), where=overlap > 0)


def _average_precisions(hits: np.ndarray, count: int) -> tuple[float, float]:
    """Compute 11-point mean and area from the hits (N,) by falling score and the number of
    objects.
    """
    if not count:
        return math.nan, math.nan
    true = np.cumsum(hits)
    precision = true / np.arange(1, len(hits) + 1)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]  # the best at this recall or more
    # first position with recall >= 0, 0.1, ... 1
    reached = np.searchsorted(10 * true, np.arange(11) * count)
    return float(np.append(envelope, 0.0)[reached].mean()), float(envelope[hits].sum() / count)
