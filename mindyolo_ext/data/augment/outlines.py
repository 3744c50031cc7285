"""Augmentations that cut objects out along their outlines. NumPy and OpenCV only."""

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
    """Objects of another photo, cut out along their outlines, on top of the image.

    The other photo is scaled to fit into the image, as ``mixup`` does, and its objects keep their
    places in it. Needs a data set with outlines; objects without one and crowds stay behind.

    Args:
        probability: of the step.
        share: probability of each object to be pasted.
        max_covered: an object that would hide more than this share of a box of the image is left
            out.

    Source: Simple Copy-Paste, arXiv:2012.07177. Unlike it: boxes of objects that are hidden in part
        stay as they are, as in YOLOv5 and ultralytics.
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
    """An outline (points, 2), fractions of the photo, in pixels of the frame that it lies in."""
    scale = np.array([placement.scale_x, placement.scale_y])
    size = np.array([placement.width, placement.height])
    return outline * size * scale + np.array([placement.pad_x, placement.pad_y])


def covered_shares(box: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Which share of each of ``boxes`` a box (4,) covers.

    Shape: boxes (N, 4) xyxy -> (N,).
    """
    common = np.minimum(boxes[:, 2:], box[2:]) - np.maximum(boxes[:, :2], box[:2])
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    return common.clip(0).prod(1) / np.maximum(areas, 1e-9)
