"""Precision, recall and F1 at IoU 0.5 over the confidence threshold. Uses NumPy only."""

from dataclasses import dataclass

import numpy as np

GRID = (
    np.arange(1000) / 1000
)  # thresholds with three digits, so that a user can type what is printed


@dataclass(frozen=True)
class OperatingPoint:
    """Scores of a class if only detections above ``confidence`` count; NaN without any."""

    confidence: float
    precision: float
    recall: float
    f1: float


def curves(
    scores: np.ndarray, hits: np.ndarray, objects: int, thresholds: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Compute precision, recall and F1 of a class over thresholds.

    Args:
        scores, hits: scores of its detections, falling, and whether each is a true positive.
        objects: number of objects of the class.
        thresholds: a detection counts if its score is strictly greater.

    Shape: scores (N,), hits (N,), thresholds (T,) -> three arrays (T,); precision is NaN where no
        detection counts, recall where there is no object.
    """
    count = np.searchsorted(-scores, -thresholds, side="left")  # scores > threshold
    true = np.concatenate([[0], np.cumsum(hits)])[count]
    nothing = np.full(len(thresholds), np.nan)
    precision = np.divide(true, count, out=nothing.copy(), where=count > 0)
    recall = true / objects if objects else nothing
    return precision, recall, 2 * true / np.maximum(count + objects, 1)


def best_point(scores: np.ndarray, hits: np.ndarray, objects: int) -> OperatingPoint:
    """Find the lowest of the thresholds 0, 0.001 ... 0.999 with the highest F1 of a class."""
    precision, recall, f1 = curves(scores, hits, objects, GRID)
    if not objects or not len(scores):
        return OperatingPoint(
            np.nan, np.nan, 0.0 if objects else np.nan, 0.0 if objects else np.nan
        )
    best = int(f1.argmax())
    return OperatingPoint(*(float(column[best]) for column in (GRID, precision, recall, f1)))
