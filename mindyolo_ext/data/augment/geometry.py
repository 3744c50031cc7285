"""Augmentations that move pixels and boxes of one image. Uses NumPy and OpenCV only."""

from dataclasses import replace

import cv2
import numpy as np

from mindyolo_ext.data.augment.boxes import keep_visible
from mindyolo_ext.data.augment.registry import AugmentContext, register_augmentation
from mindyolo_ext.data.types import Sample


@register_augmentation
def resize(sample: Sample, context: AugmentContext) -> Sample:
    """Resize the image to the network input according to the model's ``InputSpec``."""
    image, placement = context.input_spec.resize_image(sample.image)
    return replace(
        sample, image=image, boxes=placement.to_network(sample.boxes), placement=placement
    )


def mirror(sample: Sample) -> Sample:
    """Mirror the sample left to right."""
    x1, y1, x2, y2 = sample.boxes.T
    width = sample.image.shape[1]
    return replace(
        sample, image=cv2.flip(sample.image, 1), boxes=np.stack([width - x2, y1, width - x1, y2], 1)
    )


@register_augmentation
def horizontal_flip(sample: Sample, context: AugmentContext, *, probability: float = 0.5) -> Sample:
    """Mirror the image left to right."""
    if context.rng.random() >= probability:
        return sample
    return mirror(sample)


@register_augmentation
def vertical_flip(sample: Sample, context: AugmentContext, *, probability: float = 0.5) -> Sample:
    """Mirror the image top to bottom."""
    if context.rng.random() >= probability:
        return sample
    x1, y1, x2, y2 = sample.boxes.T
    height = sample.image.shape[0]
    return replace(
        sample,
        image=cv2.flip(sample.image, 0),
        boxes=np.stack([x1, height - y2, x2, height - y1], 1),
    )


@register_augmentation
def random_affine(
    sample: Sample,
    context: AugmentContext,
    *,
    degrees: float = 0.0,
    translate: float = 0.1,
    scale: tuple[float, float] = (0.5, 1.5),
    shear: float = 0.0,
    min_visible: float = 0.1,
    min_side: float = 2.0,
    probability: float = 1.0,
) -> Sample:
    """Rotate, scale and shear the image about its center, and shift it; empty areas get the
    padding's gray.

    Boxes become the bounding boxes of their transformed corners. A box is dropped if less than
    ``min_visible`` of it stays in the image, or if one of its sides becomes shorter than
    ``min_side`` pixels.

    Args:
        degrees: maximum rotation in either direction.
        translate: maximum shift as a fraction of width and height.
        scale: range of the factor.
        shear: maximum shear angle in degrees along x and y.
    """
    rng = context.rng
    if rng.random() >= probability:
        return sample
    height, width = sample.size
    angle, factor = np.deg2rad(rng.uniform(-degrees, degrees)), rng.uniform(*scale)
    shear_x, shear_y = np.tan(np.deg2rad(rng.uniform(-shear, shear, 2)))
    shift = rng.uniform(-translate, translate, 2) * (width, height)
    turn = factor * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    linear = np.array([[1, shear_x], [shear_y, 1]]) @ turn  # (2, 2)
    center = np.array([width, height]) / 2
    offset = center + shift - linear @ center
    # OpenCV counts from the middle of the first pixel, boxes from its edge
    matrix = np.column_stack([linear, offset + linear @ (0.5, 0.5) - (0.5, 0.5)])
    image = cv2.warpAffine(
        sample.image, matrix, (width, height), borderValue=(context.input_spec.pad_value,) * 3
    )
    # (N, 4, 2)
    corners = sample.boxes[:, [0, 1, 2, 1, 2, 3, 0, 3]].reshape(-1, 4, 2) @ linear.T + offset
    boxes = np.concatenate([corners.min(1), corners.max(1)], 1)
    return keep_visible(replace(sample, image=image, boxes=boxes), min_visible, min_side)
