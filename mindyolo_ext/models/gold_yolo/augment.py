"""Gold-YOLO's augmentations. NumPy and OpenCV only.

A training image takes a step of its own, then shared ones:

    gold_yolo_mosaic    four photos around a point (or one photo, letterboxed)
                        -> scaled and moved -> perhaps blended with a second such mosaic
    hsv, horizontal_flip

The step draws its random numbers and passes them to plain functions.

Source: Gold-YOLO (a fork of YOLOv6 3.0), ``yolov6/data/datasets.py`` and
    ``yolov6/data/data_augment.py``. Unlike the original: an image keeps at most ``max_boxes``
    boxes, because arrays have a fixed shape here.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from mindyolo_ext.data.augment.boxes import keep_boxes
from mindyolo_ext.data.augment.canvas import (
    Movement,
    around,
    blend,
    fitted,
    join,
    letterboxed,
    move,
)
from mindyolo_ext.data.augment.registry import AugmentContext, register_augmentation
from mindyolo_ext.data.types import Sample


@register_augmentation(images=8, is_mosaic=True)
def gold_yolo_mosaic(
    sample: Sample,
    context: AugmentContext,
    *,
    probability: float = 1.0,
    scale: float = 0.5,
    translate: float = 0.1,
    degrees: float = 0.0,
    shear: float = 0.0,
    mixup_probability: float = 0.0,
    max_boxes: float = 160,
) -> Sample:
    """Four photos as one image of the network's size, or the photo letterboxed.

    The result is scaled, turned, sheared and moved at random, and a mosaic is perhaps blended with
    a second one. Boxes of which too little is left are dropped.

    Args:
        probability: of the mosaic; otherwise the photo alone.
        scale: largest change of the factor from 1.
        translate: largest shift from the middle as a fraction of the network's width and height.
        degrees: largest rotation to either side.
        shear: largest shear angle in degrees along x and y.
        mixup_probability: of the second mosaic, once there is a first.
        max_boxes: further boxes of an image are left out.
    """
    rng, dataset = context.rng, context.dataset

    def movement() -> Movement:
        angle, factor = rng.uniform(-degrees, degrees), rng.uniform(1 - scale, 1 + scale)
        return Movement(
            angle,
            factor,
            tuple(rng.uniform(-shear, shear, 2)),
            tuple(rng.uniform(0.5 - translate, 0.5 + translate, 2)),
        )

    def mosaic(first: Sample) -> Sample:
        parts = [
            first,
            *(dataset.load(int(index)) for index in rng.integers(len(dataset), size=3)),
        ]
        canvas = join_shuffled([parts[place] for place in rng.permutation(4)], context)
        return move(canvas, movement(), context)

    if rng.random() < probability:
        result = mosaic(sample)
        if rng.random() < mixup_probability:
            other = mosaic(dataset.load(int(rng.integers(len(dataset)))))
            result = blend(result, other, float(rng.beta(32.0, 32.0)))
    else:
        result = move(letterboxed(fitted(sample, context), context), movement(), context)
    height, width = context.input_spec.size
    boxes = np.clip(result.boxes, 0, np.array([width, height] * 2) - 1e-3)
    return keep_boxes(replace(result, boxes=boxes.astype(np.float32)), slice(int(max_boxes)))


def join_shuffled(parts: Sequence[Sample], context: AugmentContext) -> Sample:
    """Four photos on a canvas of twice the network's size, touching a random point of its inner
    half.

    Args:
        parts: upper left, upper right, lower left, lower right, as the data set gives them.
    """
    height, width = context.input_spec.size
    center_y = int(context.rng.uniform(height // 2, 3 * height // 2))
    center_x = int(context.rng.uniform(width // 2, 3 * width // 2))
    fit = [fitted(part, context) for part in parts]
    corners = around((center_x, center_y), [part.size for part in fit])
    return join(fit, corners, (2 * height, 2 * width), context.input_spec.pad_value)
