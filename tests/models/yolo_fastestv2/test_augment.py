"""Yolo-FastestV2's augmentation equals the original's."""

import numpy as np
from helpers import Golden

from mindyolo_ext.data.augment.registry import AugmentContext
from mindyolo_ext.data.dataset import Dataset
from mindyolo_ext.input_spec import InputSpec
from mindyolo_ext.models.yolo_fastestv2.augment import adjust_contrast, contrast_brightness


def context(seed: int = 0) -> AugmentContext:
    return AugmentContext(np.random.default_rng(seed), None, InputSpec(), 0, 0)


def test_contrast_equals_the_original(golden: Golden) -> None:
    stored = golden.arrays("yolo_fastestv2/augment.npz")
    for (alpha, beta), wanted in zip(stored["alpha_beta"], stored["output"], strict=True):
        np.testing.assert_array_equal(
            adjust_contrast(stored["image"], float(alpha), float(beta)), wanted
        )


def test_contrast_keeps_boxes_and_changes_pixels(shapes: Dataset) -> None:
    sample = shapes.load(0)
    result = contrast_brightness(sample, context(), probability=1.0)
    np.testing.assert_array_equal(result.boxes, sample.boxes)
    assert result.image.shape == sample.image.shape and result.image.dtype == np.uint8
    assert (result.image != sample.image).mean() > 0.1
    assert contrast_brightness(sample, context(), probability=0.0) is sample


def test_contrast_draws_alpha_and_beta_apart(shapes: Dataset) -> None:
    sample = shapes.load(0)
    result = contrast_brightness(sample, context(), alpha=(1, 1), beta=(7, 7))
    np.testing.assert_array_equal(result.image, np.clip(sample.image.astype(int) + 7, 0, 255))
    result = contrast_brightness(sample, context(), alpha=(2, 2), beta=(0, 0))
    np.testing.assert_array_equal(result.image, np.clip(sample.image.astype(int) * 2, 0, 255))
