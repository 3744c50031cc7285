"""Augmentations that cut out objects along their outlines. Uses NumPy and OpenCV only."""

from dataclasses import replace

import cv2
import numpy as np

from mindyolo_ext.data.augment.registry import AugmentContext, register_augmentation
from mindyolo_ext.data.types import Sample
from mindyolo_ext.input_spec import Placement


@register_augmentation(images=2, needs_polygons=True)
def copy_paste(
    sample: Sample,
    context: AugmentContext,
    *,
    probability: float = 0.5,
    share: float = 0.5,
    max_covered: float = 0.3,
) -> Sample:
    """Paste objects of another photo, cut out along their outlines, onto the image.

    The other photo is scaled to fit into the image, as in ``mixup``, and its objects keep their
    positions. The data set must have outlines; objects without one and crowds are not pasted.

    Args:
        probability: probability of the step.
        share: probability of pasting each object.
        max_covered: an object that would cover a larger share of any box of the image is not
            pasted.

    Source: Simple Copy-Paste, arXiv:2012.07177. Unlike the paper, boxes of partly covered objects
        do not change, as in YOLOv5 and ultralytics.
    """
    rng = context.rng
    if rng.random() >= probability:
        return sample
    index = int(rng.integers(len(context.dataset)))
    other, outlines = context.dataset.load(index), context.dataset.polygons(index)
    chosen = rng.random(len(outlines)) < share
    frame = replace(context.input_spec, size=sample.size, stride=1, resize="letterbox", border=None)
    image, placement = frame.resize_image(other.image)
    boxes = placement.to_network(other.boxes)
    mask, rows = np.zeros(sample.size, np.uint8), []
    for row, outline in enumerate(outlines):
        free = (covered_shares(boxes[row], sample.boxes) <= max_covered).all()
        if outline is not None and chosen[row] and not other.ignore[row] and free:
            cv2.fillPoly(mask, [np.rint(in_frame(outline, placement)).astype(np.int32)], (1,))
            rows.append(row)
    return replace(
        sample,
        image=np.where(mask[:, :, None] > 0, image, sample.image),
        boxes=np.concatenate([sample.boxes, boxes[rows]]).astype(np.float32),
        labels=np.concatenate([sample.labels, other.labels[rows]]),
        ignore=np.concatenate([sample.ignore, other.ignore[rows]]),
    )


def in_frame(outline: np.ndarray, placement: Placement) -> np.ndarray:
    """Convert an outline (points, 2) from fractions of the photo to pixels of its frame."""
    scale = np.array([placement.scale_x, placement.scale_y])
    size = np.array([placement.width, placement.height])
    return outline * size * scale + np.array([placement.pad_x, placement.pad_y])


def covered_shares(box: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Compute the share of each of ``boxes`` that a box (4,) covers.

    Shape: boxes (N, 4) xyxy -> (N,).
    """
    common = np.minimum(boxes[:, 2:], box[2:]) - np.maximum(boxes[:, :2], box[:2])
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    return common.clip(0).prod(1) / np.maximum(areas, 1e-9)
