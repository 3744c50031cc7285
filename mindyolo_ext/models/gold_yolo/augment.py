"""Gold-YOLO's augmentations. Uses NumPy and OpenCV only.

A training image passes one step of this family, then shared ones:

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
    seen_parts,
    seen_window,
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
    """Combine four photos into one image of the network's size, or letterbox the photo.

    The result is scaled, rotated, sheared and shifted at random, and a mosaic is possibly blended
    with a second one. Boxes of which too little remains are dropped.

    Args:
        probability: probability of the mosaic; otherwise the photo alone is used.
        scale: largest deviation of the factor from 1.
        translate: largest shift from the center as a fraction of the network's width and height.
        degrees: largest rotation in either direction.
        shear: largest shear angle in degrees along x and y.
        mixup_probability: probability of a second mosaic, if there is a first.
        max_boxes: further boxes of an image are dropped.
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
        sources = [first, *map(int, rng.integers(len(dataset), size=3))]
        shuffled = [sources[place] for place in rng.permutation(4)]
        center = draw_center(context)
        return join_and_move(shuffled, center, movement(), context)

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


def draw_center(context: AugmentContext) -> tuple[int, int]:
    """A random point (x, y) of the inner half of a canvas of twice the network's size."""
    height, width = context.input_spec.size
    center_y = int(context.rng.uniform(height // 2, 3 * height // 2))
    center_x = int(context.rng.uniform(width // 2, 3 * width // 2))
    return center_x, center_y


def join_and_move(
    sources: Sequence[Sample | int],
    center: tuple[int, int],
    movement: Movement,
    context: AugmentContext,
) -> Sample:
    """Four photos that touch ``center`` on a canvas of twice the network's size, moved into an
    image of that size.

    Args:
        sources: upper left, upper right, lower left, lower right, as the data set gives them, or
            their indices.
    """
    height, width = context.input_spec.size
    canvas = 2 * height, 2 * width
    matrix = movement.projection(canvas, (height, width))
    parts = seen_parts(
        sources,
        lambda part: fitted(part, context),
        lambda sizes: around(center, sizes),
        matrix=matrix,
        context=context,
    )
    corners = around(center, [part.size for part in parts])
    window = seen_window(matrix, (height, width), canvas)
    joined = join(parts, corners, canvas, context.input_spec.pad_value, window)
    return move(joined, movement, context)
