"""Yolo-FastestV2's augmentation, applied to the resized image. Uses NumPy and OpenCV only.

Source: Yolo-FastestV2 ``utils/datasets.py``. Omitted: motion blur, HSV gains and resizing back and
    forth, which are disabled there.
"""

from dataclasses import replace

import cv2
import numpy as np

from mindyolo_ext.data.augment.registry import AugmentContext, register_augmentation
from mindyolo_ext.data.types import Sample


def adjust_contrast(image: np.ndarray, alpha: float, beta: float) -> np.ndarray:
    """Return ``alpha * image + beta``, rounded and clipped to uint8; ``beta`` is in gray levels."""
    return cv2.addWeighted(image, alpha, image, 0.0, beta)


@register_augmentation
def contrast_brightness(
    sample: Sample,
    context: AugmentContext,
    *,
    alpha: tuple[float, float] = (0.25, 1.75),
    beta: tuple[float, float] = (0.25, 1.75),
    probability: float = 1.0,
) -> Sample:
    """Change contrast (factor ``alpha``) and brightness (``beta`` gray levels).

    Source: Yolo-FastestV2 ``utils/datasets.py``. As in the original: ``beta`` is added in gray
        levels, so its default hardly changes the brightness.
    """
    if context.rng.random() >= probability:
        return sample
    return replace(
        sample,
        image=adjust_contrast(
            sample.image, context.rng.uniform(*alpha), context.rng.uniform(*beta)
        ),
    )
