"""Select the boxes that a sample keeps. Uses NumPy only."""

from dataclasses import replace

import numpy as np

from mindyolo_ext.data.types import Sample


def keep_boxes(sample: Sample, wanted: np.ndarray | slice) -> Sample:
    """Return the sample with a selection of its boxes."""
    return replace(
        sample,
        boxes=sample.boxes[wanted],
        labels=sample.labels[wanted],
        ignore=sample.ignore[wanted],
    )


def with_boxes(sample: Sample, image: np.ndarray, boxes: np.ndarray, labels: np.ndarray) -> Sample:
    """Return the sample with another image and other boxes, none of them ignored."""
    return replace(
        sample, image=image, boxes=boxes, labels=labels, ignore=np.zeros(len(labels), bool)
    )


def keep_visible(sample: Sample, min_visible: float, min_side: float) -> Sample:
    """Clip the sample's boxes to the image, and drop those that lost too much area.

    Args:
        min_visible: share of the area before clipping that must remain.
        min_side: length of both sides that must remain, in pixels.
    """
    height, width = sample.size
    clipped = np.clip(sample.boxes, 0, np.array([width, height] * 2))
    sides, before = clipped[:, 2:] - clipped[:, :2], sample.boxes[:, 2:] - sample.boxes[:, :2]
    keep = (sides >= min_side).all(1) & (sides.prod(1) >= min_visible * before.prod(1))
    return keep_boxes(replace(sample, boxes=clipped.astype(np.float32)), keep)
