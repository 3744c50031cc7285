"""YOLOX's augmentations. Uses NumPy and OpenCV only.

A training image passes two steps, then ``resize`` pads it to the network's size:

    yolox_mosaic      four photos around a point -> turned, scaled, sheared and moved
                      -> perhaps half of another photo
    yolox_hsv_flip    shifted colors, mirror image, and which boxes stay

Each step draws its random numbers and passes them to plain functions.

Source: YOLOX, arXiv:2107.08430, ``yolox/data/datasets/mosaicdetection.py`` and
    ``yolox/data/data_augment.py``. Unlike the original: a step at another size
    (``train.multi_scale``) is rendered at that size, where the original renders at one size and
    scales the whole batch on the device.
"""

import math
from collections.abc import Sequence
from dataclasses import replace

import cv2
import numpy as np

from mindyolo_ext.data.augment.boxes import keep_boxes, with_boxes
from mindyolo_ext.data.augment.canvas import around, join, scaled, seen_parts, seen_window
from mindyolo_ext.data.augment.geometry import mirror
from mindyolo_ext.data.augment.registry import AugmentContext, register_augmentation
from mindyolo_ext.data.types import Sample


@register_augmentation(images=5, is_mosaic=True)
def yolox_mosaic(
    sample: Sample,
    context: AugmentContext,
    *,
    probability: float = 1.0,
    scale: tuple[float, float] = (0.5, 1.5),
    degrees: float = 10.0,
    translate: float = 0.1,
    shear: float = 2.0,
    mixup_probability: float = 0.0,
    mixup_scale: tuple[float, float] = (0.5, 1.5),
) -> Sample:
    """Combine four photos into one image of the network's size, possibly blended with a fifth, or
    return the photo unchanged.

    Boxes are clipped but all kept, even without area; ``yolox_hsv_flip`` drops tiny ones.

    Args:
        probability: probability of the mosaic, and with it of everything else here.
        scale: range of the factor for the mosaic, which has twice the network's size.
        degrees: largest rotation in either direction.
        translate: largest shift as a fraction of the network's width and height.
        shear: largest shear angle in degrees along x and y.
        mixup_probability: probability of the fifth photo, if there is a mosaic with boxes.
        mixup_scale: range of the factor for the fifth photo.
    """
    rng, size = context.rng, context.input_spec.size
    if rng.random() >= probability:
        return sample
    height, width = size
    sources = [sample, *map(int, rng.integers(len(context.dataset), size=3))]
    center = (
        int(rng.uniform(0.5 * width, 1.5 * width)),
        int(rng.uniform(0.5 * height, 1.5 * height)),
    )
    angle, factor = rng.uniform(-degrees, degrees), rng.uniform(*scale)
    matrix = affine_matrix(
        angle,
        factor,
        shear=rng.uniform(-shear, shear, 2),
        shift=rng.uniform(-translate, translate, 2) * (width, height),
    )
    parts = seen_parts(
        sources,
        lambda part: fit_whole(part, size),
        lambda sizes: around(center, sizes),
        matrix=matrix,
        context=context,
    )
    joined = warp(
        join_fitted(
            parts,
            center,
            size,
            context.input_spec.pad_value,
            seen_window(matrix, size, (2 * height, 2 * width)),
        ),
        matrix,
        size,
        context.input_spec.pad_value,
    )
    if len(joined.boxes) and rng.random() < mixup_probability:
        other = _photo_with_boxes(context)
        if other is not None:
            resized = scale_and_flip(
                other,
                rng.uniform(*mixup_scale),
                rng.random() < 0.5,
                size,
                pad_value=context.input_spec.pad_value,
            )
            spare = [max(0, side - wanted) for side, wanted in zip(resized.image.shape, size)]
            # As in the original: the last position is never drawn
            top, left = (int(rng.integers(pixels)) if pixels else 0 for pixels in spare)
            joined = blend(joined, resized, (left, top))
    return replace(joined, boxes=joined.boxes.astype(np.float32))


@register_augmentation
def yolox_hsv_flip(
    sample: Sample,
    context: AugmentContext,
    *,
    probability: float = 1.0,
    hue: float = 5.0,
    saturation: float = 30.0,
    value: float = 30.0,
    flip_probability: float = 0.5,
    min_side: float = 1.0,
    max_boxes: float = 120,
) -> Sample:
    """Scale the image to fit into the network's size, shift its colors, possibly mirror it, and
    drop tiny boxes.

    Boxes with a side of ``min_side`` network pixels or less are dropped. As in the original: if
    none would remain, all stay, and neither colors nor direction change; the same holds for an
    image without boxes.

    Args:
        probability: probability of the color shift.
        hue: largest shift in either direction in OpenCV's units of 2 degrees; each of the three
            shifts has a probability of one half.
        saturation, value: the same in steps of 1 / 255.
        flip_probability: probability of mirroring.
        max_boxes: further boxes of an image are dropped.
    """
    rng, size = context.rng, context.input_spec.size
    shifts = rng.uniform(-1, 1, 3) * (hue, saturation, value) * rng.integers(0, 2, 3)
    shift_colors, flip = rng.random() < probability, rng.random() < flip_probability
    fitted = fit(trained_on(sample), size)
    kept = drop_tiny(fitted, size, min_side)
    if len(kept.boxes):
        image = shift_hsv(kept.image, shifts) if shift_colors else kept.image
        fitted = mirror(replace(kept, image=image)) if flip else replace(kept, image=image)
    return _rows(fitted, slice(int(max_boxes)))


def trained_on(sample: Sample) -> Sample:
    """Remove crowds and difficult objects."""
    return _rows(sample, ~sample.ignore) if sample.ignore.any() else sample


def fit(sample: Sample, size: tuple[int, int]) -> Sample:
    """Scale the sample to fit into ``size`` (height, width), with sides rounded down to whole
    pixels and boxes scaled by the exact factor.
    """
    height, width = sample.size
    ratio = min(size[0] / height, size[1] / width)
    shape = int(width * ratio), int(height * ratio)
    image = scaled(sample, (max(1, shape[1]), max(1, shape[0])))
    return replace(sample, image=image, boxes=sample.boxes.astype(np.float64) * ratio)


def fit_whole(sample: Sample, size: tuple[int, int]) -> Sample:
    """The sample scaled to fill ``size`` (height, width) along one side, without crowds."""
    # Twice: cutting the sides to whole pixels may have lost one
    return fit(fit(trained_on(sample), size), size)


def join_four(
    parts: Sequence[Sample], center: tuple[int, int], size: tuple[int, int], pad_value: int
) -> Sample:
    """Place four photos on a canvas of twice the network's size around one point.

    Args:
        parts: upper left, upper right, lower left, lower right; each is scaled to fit into
            ``size``.
        center: the point (x, y) in pixels of the canvas.
        size: (height, width) of the network input.
        pad_value: gray level of empty areas.
    """
    return join_fitted([fit_whole(part, size) for part in parts], center, size, pad_value)


def join_fitted(
    parts: Sequence[Sample],
    center: tuple[int, int],
    size: tuple[int, int],
    pad_value: int,
    window: tuple[int, int, int, int] | None = None,
) -> Sample:
    """``join_four`` of photos that are scaled already; ``window`` as in ``join``."""
    corners = around(center, [part.size for part in parts])
    return join(parts, corners, (2 * size[0], 2 * size[1]), pad_value, window)


def affine_matrix(
    angle: float, factor: float, *, shear: Sequence[float], shift: Sequence[float]
) -> np.ndarray:
    """Return the (2, 3) matrix that rotates, scales and shears about the ORIGIN, not the center,
    and then shifts.

    Args:
        angle, shear: degrees; ``shear`` along x and y.
        factor: scale factor.
        shift: pixels along x and y.
    """
    turn = cv2.getRotationMatrix2D((0, 0), angle, factor)[:, :2]
    shear_x, shear_y = (math.tan(math.radians(degrees)) for degrees in shear)
    # As in the original: each row gets a share of the other, with x and y exchanged
    return np.column_stack([[turn[0] + shear_y * turn[1], turn[1] + shear_x * turn[0]], shift])


def warp(sample: Sample, matrix: np.ndarray, size: tuple[int, int], pad_value: int) -> Sample:
    """Transform the sample by ``matrix`` (2, 3) and crop to ``size`` (height, width). Boxes become
    the bounding boxes of their transformed corners, clipped; none is dropped.
    """
    height, width = size
    image = cv2.warpAffine(sample.image, matrix, (width, height), borderValue=(pad_value,) * 3)
    corners = sample.boxes[:, [0, 1, 2, 3, 0, 3, 2, 1]].reshape(-1, 4, 2)
    corners = corners @ matrix[:, :2].T + matrix[:, 2]  # (N, 4, 2)
    frames = np.concatenate([corners.min(1), corners.max(1)], 1)
    return replace(sample, image=image, boxes=np.clip(frames, 0, (width, height, width, height)))


def scale_and_flip(
    sample: Sample, factor: float, flip: bool, size: tuple[int, int], *, pad_value: int
) -> Sample:
    """Place the photo in the top left corner of an image of ``size`` (height, width), then scale
    and possibly mirror that.
    """
    fitted = fit_whole(sample, size)
    canvas = np.full((*size, 3), pad_value, np.uint8)
    canvas[: fitted.image.shape[0], : fitted.image.shape[1]] = fitted.image
    shape = max(1, int(size[1] * factor)), max(1, int(size[0] * factor))
    image = cv2.resize(canvas, shape)
    boxes = np.clip(fitted.boxes * factor, 0, (*shape, *shape))
    resized = replace(fitted, image=image, boxes=boxes)
    return mirror(resized) if flip else resized


def blend(sample: Sample, other: Sample, offset: tuple[int, int]) -> Sample:
    """Blend the sample with a window of the other, half each, and keep the boxes of both.

    Args:
        other: parts of the window outside of it count as black.
        offset: left and top of the window in ``other``.
    """
    height, width = sample.size
    left, top = offset
    window = other.image[top : top + height, left : left + width]
    covered = np.zeros_like(sample.image)
    covered[: window.shape[0], : window.shape[1]] = window
    # the mean rounded down, without overflow
    image = sample.image ^ covered
    image >>= 1
    image += sample.image & covered
    moved = np.clip(other.boxes - (left, top, left, top), 0, (width, height, width, height))
    return with_boxes(
        sample,
        image,
        np.concatenate([sample.boxes, moved]),
        np.concatenate([sample.labels, other.labels]),
    )


def shift_hsv(image: np.ndarray, shifts: Sequence[float]) -> np.ndarray:
    """Shift hue (cyclic), saturation and value (clipped to 0..255) by whole steps."""
    hue, saturation, value = (int(shift) for shift in shifts)  # rounded towards zero
    levels = np.arange(256)
    table = np.stack(
        [
            (levels + hue) % 180,
            np.clip(levels + saturation, 0, 255),
            np.clip(levels + value, 0, 255),
        ],
        -1,
    )
    changed = cv2.LUT(cv2.cvtColor(image, cv2.COLOR_BGR2HSV), table[None].astype(np.uint8))
    return cv2.cvtColor(changed, cv2.COLOR_HSV2BGR)


def drop_tiny(sample: Sample, size: tuple[int, int], min_side: float) -> Sample:
    """Drop boxes whose shorter side is ``min_side`` pixels or less after fitting the sample into
    ``size``.
    """
    ratio = min(size[0] / sample.image.shape[0], size[1] / sample.image.shape[1])
    sides = (sample.boxes[:, 2:] - sample.boxes[:, :2]) * ratio
    return _rows(sample, sides.min(1) > min_side)


def _photo_with_boxes(context: AugmentContext, tries: int = 1000) -> Sample | None:
    """Load a random photo with boxes to train on; None if ``tries`` draws find none."""
    for _ in range(tries):
        index = int(context.rng.integers(len(context.dataset)))
        if not context.dataset.annotations(index).ignore.all():
            return context.dataset.load(index)
    return None


def _rows(sample: Sample, wanted: np.ndarray | slice) -> Sample:
    """Return the sample with a selection of its boxes, as float32."""
    kept = keep_boxes(sample, wanted)
    return replace(kept, boxes=kept.boxes.astype(np.float32))
