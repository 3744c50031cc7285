"""Gold-YOLO's augmentations. NumPy and OpenCV only.

A training picture takes one step of its own, then colours and mirror images as everywhere:

    gold_yolo_mosaic    four photos around a point (or one photo, letterboxed) -> scaled and moved -> perhaps blended
                        with a second such mosaic
    hsv, horizontal_flip

The step draws its random numbers and hands them to plain functions, which always do the same with the same numbers.

Source: Gold-YOLO (a fork of YOLOv6 3.0), ``yolov6/data/datasets.py`` and ``yolov6/data/data_augment.py``. Unlike the
original: a picture keeps at most ``max_boxes`` boxes, because arrays have a fixed shape here.
"""
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np

from mindyolo_ext.data.dataset import Sample
from mindyolo_ext.data.transform_registry import AugmentContext, register_transform

# A box stays with more than so many pixels a side, so much of its scaled area, and less longer than wide
MIN_SIDE, MIN_AREA, MAX_ASPECT = 2.0, 0.1, 20.0


@dataclass(frozen=True)
class Movement:
    """A turn, scaling, shear and shift of a canvas into a picture.

    Args:
        angle: degrees.
        factor: of the scaling.
        shear: degrees along x and y.
        target: where the canvas's centre comes to lie, as fractions (x, y) of the picture.
    """

    angle: float
    factor: float
    shear: tuple[float, float]
    target: tuple[float, float]

    def matrix(self, canvas: tuple[int, int], size: tuple[int, int]) -> np.ndarray:
        """(2, 3) matrix from pixels of ``canvas`` (height, width) to pixels of the picture ``size`` (height, width)."""
        turn = cv2.getRotationMatrix2D((0, 0), self.angle, self.factor)[:, :2]
        shear_x, shear_y = (math.tan(math.radians(degrees)) for degrees in self.shear)
        linear = np.array([[1, shear_x], [shear_y, 1]]) @ turn
        centre = np.array([canvas[1], canvas[0]]) / 2
        return np.column_stack([linear, np.array(self.target) * (size[1], size[0]) - linear @ centre])


@register_transform(pictures=8)
def gold_yolo_mosaic(sample: Sample, context: AugmentContext, *, probability: float = 1.0, scale: float = 0.5,
                     translate: float = 0.1, degrees: float = 0.0, shear: float = 0.0,
                     mixup_probability: float = 0.0, max_boxes: float = 160) -> Sample:
    """Four photos as one picture of the network's size, perhaps blended with four others; or the photo letterboxed.

    Whichever it is, it is scaled, turned, sheared and moved at random, and boxes of which too little is left go.

    Args:
        probability: of the mosaic; otherwise the photo alone.
        scale: largest change of the factor from 1.
        translate: largest shift from the middle as a fraction of the network's width and height.
        degrees: largest rotation to either side.
        shear: largest shear angle in degrees along x and y.
        mixup_probability: of the second mosaic, once there is a first.
        max_boxes: further boxes of a picture are left out.
    """
    rng, pictures = context.rng, context.dataset

    def movement() -> Movement:
        angle, factor = rng.uniform(-degrees, degrees), rng.uniform(1 - scale, 1 + scale)
        return Movement(angle, factor, tuple(rng.uniform(-shear, shear, 2)),
                        tuple(rng.uniform(0.5 - translate, 0.5 + translate, 2)))

    def mosaic(first: Sample) -> Sample:
        parts = [first, *(pictures.load(int(index)) for index in rng.integers(len(pictures), size=3))]
        canvas = join_shuffled([parts[place] for place in rng.permutation(4)], context)
        return move(canvas, movement(), context)

    if rng.random() < probability:
        result = mosaic(sample)
        if rng.random() < mixup_probability:
            other = mosaic(pictures.load(int(rng.integers(len(pictures)))))
            result = blend(result, other, float(rng.beta(32.0, 32.0)))
    else:
        result = move(letterboxed(load(sample, context), context), movement(), context)
    height, width = context.input_spec.size
    boxes = np.clip(result.boxes, 0, np.array([width, height] * 2) - 1e-3)
    return _rows(replace(result, boxes=boxes.astype(np.float32)), slice(int(max_boxes)))


def load(sample: Sample, context: AugmentContext) -> Sample:
    """The sample scaled to fit into the network's size, sides cut to whole pixels; without crowds."""
    height, width = sample.image.shape[:2]
    size = context.input_spec.size
    ratio = min(size[0] / height, size[1] / width)
    new_w, new_h = max(1, int(width * ratio)), max(1, int(height * ratio))
    image = sample.image
    if (new_w, new_h) != (width, height):
        image = cv2.resize(image, (new_w, new_h), interpolation=cv2.INTER_LINEAR)
    boxes = sample.boxes.astype(np.float64) * np.array([new_w / width, new_h / height] * 2)
    return _rows(replace(sample, image=image, boxes=boxes), ~sample.ignore)


def letterboxed(sample: Sample, context: AugmentContext) -> Sample:
    """A loaded sample in the middle of a picture of the network's size, which the cut may have made a pixel larger."""
    spec = replace(context.input_spec, resize="letterbox", rounding="nearest", pad_anchor="center", scale_up=True,
                   shrink="linear", border=None)
    height, width = sample.image.shape[:2]
    image, placement = spec.resize_image(sample.image)
    free = [spec.size[1] - round(width * placement.scale_x), spec.size[0] - round(height * placement.scale_y)]
    # As in the original: the boxes lie in the true middle, the photo half a pixel beside it where the rest is odd
    return replace(sample, image=image, boxes=sample.boxes * placement.scale_x + np.array(free * 2) / 2)


def join_shuffled(parts: Sequence[Sample], context: AugmentContext) -> Sample:
    """Four photos on a canvas of twice the network's size, touching a random point of its inner half.

    Args:
        parts: upper left, upper right, lower left, lower right, as the data set gives them.
    """
    height, width = context.input_spec.size
    centre_y = int(context.rng.uniform(height // 2, 3 * height // 2))
    centre_x = int(context.rng.uniform(width // 2, 3 * width // 2))
    canvas = np.full((2 * height, 2 * width, 3), context.input_spec.pad_value, np.uint8)
    boxes, labels = [], []
    for number, part in enumerate(parts):
        part = load(part, context)
        part_h, part_w = part.image.shape[:2]
        left = centre_x if number % 2 else centre_x - part_w
        top = centre_y if number // 2 else centre_y - part_h
        x1, y1, x2, y2 = max(left, 0), max(top, 0), min(left + part_w, 2 * width), min(top + part_h, 2 * height)
        canvas[y1:y2, x1:x2] = part.image[y1 - top:y2 - top, x1 - left:x2 - left]
        boxes.append(part.boxes + (left, top, left, top))
        labels.append(part.labels)
    clipped = np.clip(np.concatenate(boxes), 0, (2 * width, 2 * height) * 2)
    return _with_boxes(parts[0], canvas, clipped, np.concatenate(labels))


def move(sample: Sample, movement: Movement, context: AugmentContext) -> Sample:
    """The sample moved into a picture of the network's size; boxes become the upright frames of their moved corners.

    A box stays if both sides have more than 2 pixels, a tenth of its scaled area is left and it is not 20 times as long
    as wide.
    """
    height, width = context.input_spec.size
    matrix = movement.matrix(sample.image.shape[:2], (height, width))
    image = cv2.warpAffine(sample.image, matrix, (width, height), borderValue=(context.input_spec.pad_value,) * 3)
    corners = sample.boxes[:, [0, 1, 2, 3, 0, 3, 2, 1]].reshape(-1, 4, 2)
    corners = corners @ matrix[:, :2].T + matrix[:, 2]              # (N, 4, 2)
    moved = np.clip(np.concatenate([corners.min(1), corners.max(1)], 1), 0, (width, height) * 2)
    before, after = (sample.boxes[:, 2:] - sample.boxes[:, :2]) * movement.factor, moved[:, 2:] - moved[:, :2]
    keep = ((after > MIN_SIDE).all(1) & (after.prod(1) > MIN_AREA * before.prod(1))
            & (after.max(1) < MAX_ASPECT * after.min(1)))
    return _rows(replace(sample, image=image, boxes=moved), keep)


def blend(sample: Sample, other: Sample, share: float) -> Sample:
    """``share`` of the sample and the rest of the other, grey levels cut to whole numbers; the boxes of both."""
    image = (sample.image * share + other.image * (1 - share)).astype(np.uint8)
    return _with_boxes(sample, image, np.concatenate([sample.boxes, other.boxes]),
                       np.concatenate([sample.labels, other.labels]))


def _rows(sample: Sample, rows: np.ndarray | slice) -> Sample:
    """The sample with these of its boxes."""
    return replace(sample, boxes=sample.boxes[rows], labels=sample.labels[rows], ignore=sample.ignore[rows])


def _with_boxes(sample: Sample, image: np.ndarray, boxes: np.ndarray, labels: np.ndarray) -> Sample:
    """The sample with another picture and other boxes, none of them ignored."""
    return replace(sample, image=image, boxes=boxes, labels=labels, ignore=np.zeros(len(labels), bool))
