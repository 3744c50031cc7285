"""Decide which images of a routed model are hard, and find the threshold for a share of them. Uses
NumPy only.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mindyolo_ext.errors import UsageError


@dataclass
class PartMeter:
    """Time of one part, without compilation and first run, and number of processed images."""

    images: int = 0
    seconds: float = 0.0

    @property
    def milliseconds(self) -> float:
        """Milliseconds per image; 0 before the first."""
        return 1e3 * self.seconds / max(self.images, 1)


def is_hard(easiness: np.ndarray, dy_thres: float) -> np.ndarray:
    """Decide which images take the second exit, (B,) bool.

    Unlike the original: a threshold of 1 sends all images there, including those whose easiness
    rounds to 1.
    """
    return (np.asarray(easiness, np.float64) < dy_thres) | (dy_thres >= 1)


def checked_threshold(dy_thres: float) -> float:
    """Return the threshold. Raises: UsageError outside 0..1."""
    if not 0 <= dy_thres <= 1:
        raise UsageError(
            "dy_thres: wanted a threshold in 0..1 (images whose easiness is below it take the "
            f"second exit), got {dy_thres}"
        )
    return float(dy_thres)


def threshold_for(easy: float, stored: Mapping[str, Any]) -> float:
    """Return the threshold for a share of easy images, interpolated between stored percentiles.

    Args:
        easy: share of images that take the first exit, in 0..1.
        stored: percentiles measured by ``mindyolo-ext thresholds``; may be empty for shares 0 and
            1.

    Raises: UsageError for another share.
    """
    if not 0 <= easy <= 1:
        raise UsageError(f"easy: wanted the share of easy images in 0..1, got {easy}")
    if easy in (0, 1):
        return 1.0 - easy
    # At the ends, 0 and 1 replace the smallest and largest easiness; no image has these values
    values = np.array([stored["lowest"], *stored["values"][1:-1], stored["highest"]], np.float64)
    return float(np.interp(10 - 10 * easy, np.arange(11), values))
