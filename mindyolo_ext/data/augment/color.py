"""Augmentations that change colors and keep boxes. Uses NumPy and OpenCV only."""

from dataclasses import replace

import cv2
import numpy as np

from mindyolo_ext.data.augment.registry import AugmentContext, register_augmentation
from mindyolo_ext.data.types import Sample


@register_augmentation
def hsv(
    sample: Sample,
    context: AugmentContext,
    *,
    hue: float = 0.0138,
    saturation: float = 0.678,
    value: float = 0.36,
    probability: float = 1.0,
) -> Sample:
    """Multiply hue, saturation and value by random factors.

    Args:
        hue, saturation, value: maximum deviation of the factor from 1.

    Source: YOLOv5 ``augment_hsv``, as in Gold-YOLO's and DynamicDet's loaders.
    """
    if context.rng.random() >= probability:
        return sample
    gains = 1 + context.rng.uniform(-1, 1, 3) * (hue, saturation, value)
    levels = np.arange(256)
    table = np.stack(
        [
            (levels * gains[0]) % 180,
            np.clip(levels * gains[1], 0, 255),
            np.clip(levels * gains[2], 0, 255),
        ],
        -1,
    ).astype(np.uint8)[None]  # (1, 256, 3)
    changed = cv2.LUT(cv2.cvtColor(sample.image, cv2.COLOR_BGR2HSV), table)
    return replace(sample, image=cv2.cvtColor(changed, cv2.COLOR_HSV2BGR))
