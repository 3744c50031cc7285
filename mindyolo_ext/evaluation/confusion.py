"""Compute the confusion matrix of an evaluation with supervision, an optional package. Loads no
framework.
"""

import importlib.util
import logging

import numpy as np

from mindyolo_ext.errors import MissingPackageError
from mindyolo_ext.evaluation.matching import MATCH_IOU, Matches

logger = logging.getLogger(__name__)


def has_supervision() -> bool:
    """Whether the package and its dependencies are installed."""
    return not _problem()


def warn_without_supervision() -> None:
    """Warn before a run if it will not write a confusion matrix."""
    if problem := _problem():
        logger.warning("no confusion matrix will be drawn: %s", problem)


def _problem() -> str:
    """Explain why supervision cannot be used and what to type; empty if it can."""
    if importlib.util.find_spec("supervision") is None:
        return "supervision is not installed; run `pip install supervision`"
    try:
        importlib.import_module("supervision")
    except ImportError as error:
        return (
            f"supervision does not start ({error}); `pip install supervision` adds what is missing"
        )
    return ""


def confusion_matrix(matches: Matches, confidence: float) -> np.ndarray:
    """Count how often each class was confused with each other one.

    Detections with a score of at least ``confidence`` are paired with objects if their IoU is above
    0.5, pairs of the same class first. Crowd regions and detections that COCO ignores are left out.

    Shape: (K + 1, K + 1) int64; rows are the true classes, columns the detected ones, in both the
        last is background.
    Raises: MissingPackageError without supervision, or without a package that it needs.
    """
    if problem := _problem():
        raise MissingPackageError(f"confusion matrix: {problem}")
    from supervision import ConfusionMatrix

    truth, found = matches.truth, matches.found
    objects = np.flatnonzero(~truth.crowd & (truth.category >= 0))
    rows = np.flatnonzero(matches.counted & (found.score >= confidence))
    targets = np.column_stack([_corners(truth.xywh[objects]), truth.category[objects]])
    boxes = np.column_stack([_corners(found.xywh[rows]), found.category[rows], found.score[rows]])
    count = len(truth.image_ids)
    made = ConfusionMatrix.from_tensors(
        predictions=_by_image(boxes, found.image[rows], count),
        targets=_by_image(targets, truth.image[objects], count),
        classes=truth.names,
        conf_threshold=confidence,
        iou_threshold=MATCH_IOU,
    )
    return made.matrix.astype(np.int64)


def _corners(xywh: np.ndarray) -> np.ndarray:
    """(N, 4) xywh -> (N, 4) xyxy."""
    return np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1)


def _by_image(rows: np.ndarray, image: np.ndarray, count: int) -> list[np.ndarray]:
    """Split the rows by image."""
    order = np.argsort(image, kind="stable")
    return np.split(rows[order], np.searchsorted(image[order], np.arange(1, count)))
