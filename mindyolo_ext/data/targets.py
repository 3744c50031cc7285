"""Convert boxes of a sample to rows of a batch. Uses NumPy only."""

import numpy as np

from mindyolo_ext.data.types import Sample

_MULTIPLE = 8  # few different shapes mean few compiled graphs


def targets_of(sample: Sample) -> np.ndarray:
    """Return class, cx, cy, w, h as fractions of the image, (N, 5) float32, without ignored
    boxes.
    """
    height, width = sample.size
    boxes = (sample.boxes / np.array([width, height, width, height], np.float32))[~sample.ignore]
    centers, sides = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
    return np.concatenate([sample.labels[~sample.ignore, None], centers, sides], 1).astype(
        np.float32
    )


def padded_count(boxes: int) -> int:
    """Return the number of rows for ``boxes`` boxes: the next multiple of 8, at least 8."""
    return max(_MULTIPLE, -(-boxes // _MULTIPLE) * _MULTIPLE)
