"""The simple YOLO's augmentations. Uses NumPy, OpenCV, and Pillow through the model's input.

A training image passes these steps in order:

    simple_yolo_mosaic        four photos that meet in the middle of a canvas, or one photo,
                              letterboxed
    simple_yolo_perspective   off in the original's recipe
    simple_yolo_scale_crop    perhaps made smaller or larger, padded, and a random window of the
                              network's size
    color_jitter              brightness, contrast and saturation in a random order
    horizontal_flip

Each step draws its random numbers and passes them to plain functions.

Source: simple-yolo-pytorch, ``datasets/base_dataset.py`` (``load_data``) and ``datasets/voc.py``,
    with its albumentations steps implemented here; ``RandomScale``, ``PadIfNeeded`` and
    ``RandomCrop`` are one step. Unlike the original: an image keeps at most ``max_boxes`` boxes,
    because arrays have a fixed shape here; perspective and rotation (``random_affine``) come before
    the scaling, which only adds one resampling.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import cv2
import numpy as np

from mindyolo_ext.data.augment.boxes import keep_boxes
from mindyolo_ext.data.augment.canvas import around, join, moved_points
from mindyolo_ext.data.augment.registry import AugmentContext, register_augmentation
from mindyolo_ext.data.types import Sample
from mindyolo_ext.errors import ConfigError
from mindyolo_ext.input_spec import InputSpec

_LARGEST_JITTER = 0.32  # largest share of a side by which perspective moves a corner


@register_augmentation(images=4, is_mosaic=True)
def simple_yolo_mosaic(
    sample: Sample, context: AugmentContext, *, probability: float = 1.0
) -> Sample:
    """Combine the photo and three others around the center of a canvas of twice the network's size,
    or letterbox the photo.

    All four are different; a data set of fewer than four images leaves quarters empty.

    Args:
        probability: probability of the mosaic.
    """
    frame = _letterbox(context)
    if context.rng.random() >= probability:
        image, placement = frame.resize_image(sample.image)
        return replace(sample, image=image, boxes=placement.to_network(sample.boxes))
    count = len(context.dataset)
    drawn = context.rng.choice(count - 1, min(3, count - 1), replace=False) if count > 1 else ()
    others = [context.dataset.load(int(index) + (index >= context.index)) for index in drawn]
    return join_centered([sample, *others], frame)


def join_centered(parts: Sequence[Sample], frame: InputSpec) -> Sample:
    """Place up to four photos on a canvas of twice ``frame``'s size, each fitted into a quarter and
    touching the center.

    Args:
        parts: upper left, upper right, lower left, lower right.
        frame: how a photo is fitted, and the background.
    """
    fit = []
    for part in parts:
        ratio = frame.place(*part.size).scale_x
        fit.append(
            replace(
                part, image=frame.fit_image(part.image), boxes=part.boxes.astype(np.float64) * ratio
            )
        )
    height, width = frame.size
    corners = around((width, height), [part.size for part in fit])
    joined = join(fit, corners, (2 * height, 2 * width), frame.pad_value)
    ignore = np.concatenate([part.ignore for part in parts])
    return replace(joined, boxes=joined.boxes.astype(np.float32), ignore=ignore)


def _letterbox(context: AugmentContext) -> InputSpec:
    """Return the input convention of the original's loader, at the size of this step."""
    return replace(
        context.input_spec,
        resize="letterbox",
        rounding="nearest",
        pad_anchor="center",
        scale_up=True,
        border=None,
    )


@register_augmentation
def simple_yolo_perspective(
    sample: Sample,
    context: AugmentContext,
    *,
    scale: tuple[float, float] = (0.05, 0.1),
    min_area: float = 10.0,
    min_visible: float = 0.01,
    probability: float = 0.5,
) -> Sample:
    """Change the perspective: four points near the image's corners become its corners; the size
    stays.

    Boxes become the bounding boxes of their transformed corners, see ``simple_yolo_scale_crop``.

    Args:
        scale: range of the deviation of the points from the corners, as a fraction of width and
            height.
        min_area, min_visible: see ``simple_yolo_scale_crop``.

    Source: ``Perspective`` of albumentations.
    """
    rng = context.rng
    if rng.random() >= probability:
        return sample
    moves = np.abs(rng.normal(0.0, rng.uniform(*scale), (4, 2))) % _LARGEST_JITTER
    height, width = sample.size
    corners = np.array([[0, 0], [1, 0], [1, 1], [0, 1]])
    inside = np.where(corners == 1, 1 - moves, moves) * (width, height)
    projection = cv2.getPerspectiveTransform(
        inside.astype(np.float32), (corners * (width, height)).astype(np.float32)
    )
    image = cv2.warpPerspective(
        sample.image, projection, (width, height), borderValue=(context.input_spec.pad_value,) * 3
    )
    points = moved_points(
        sample.boxes[:, [0, 1, 2, 1, 2, 3, 0, 3]].reshape(-1, 4, 2).astype(np.float64), projection
    )
    boxes = np.concatenate([points.min(1), points.max(1)], 1)
    return keep_seen(replace(sample, image=image, boxes=boxes), min_area, min_visible)


@register_augmentation
def simple_yolo_scale_crop(
    sample: Sample,
    context: AugmentContext,
    *,
    scale: tuple[float, float] = (0.5, 2.0),
    min_area: float = 10.0,
    min_visible: float = 0.01,
    max_boxes: float = 160,
    probability: float = 0.5,
) -> Sample:
    """Scale the image at random, and crop a random window of the network's size.

    An image that is smaller than the window is padded on both sides with the model's padding. Boxes
    are clipped; a box is dropped if less than ``min_area`` or less than the share ``min_visible``
    of it remains.

    Args:
        scale: range of the factor.
        min_area: square pixels.
        max_boxes: further boxes of an image are dropped.
        probability: probability of scaling; the window is always cropped.

    Source: ``RandomScale``, ``PadIfNeeded`` and ``RandomCrop`` of albumentations, linear
        interpolation.
    """
    rng = context.rng
    if rng.random() < probability:
        sample = scaled(sample, rng.uniform(*scale))
    sample = padded(sample, context.input_spec.size, context.input_spec.pad_value)
    top, left = (
        int(rng.integers(0, room + 1)) for room in np.subtract(sample.size, context.input_spec.size)
    )
    return keep_boxes(
        window(sample, (left, top), context.input_spec.size, (min_area, min_visible)),
        slice(int(max_boxes)),
    )


def scaled(sample: Sample, factor: float) -> Sample:
    """Scale the sample, with sides rounded down to whole pixels; boxes use each side's own
    factor.
    """
    height, width = sample.size
    new_h, new_w = max(1, int(height * factor)), max(1, int(width * factor))
    return replace(
        sample,
        image=cv2.resize(sample.image, (new_w, new_h), interpolation=cv2.INTER_LINEAR),
        boxes=(sample.boxes * np.array([new_w / width, new_h / height] * 2)).astype(np.float32),
    )


def padded(sample: Sample, size: tuple[int, int], pad_value: int) -> Sample:
    """Center the sample in an image of at least ``size`` (height, width); an odd remainder goes to
    the bottom and right.
    """
    (height, width), (least_h, least_w) = sample.size, size
    free_y, free_x = max(least_h - height, 0), max(least_w - width, 0)
    if not free_y and not free_x:
        return sample
    top, left = free_y // 2, free_x // 2
    image = cv2.copyMakeBorder(
        sample.image,
        top,
        free_y - top,
        left,
        free_x - left,
        cv2.BORDER_CONSTANT,
        value=(pad_value,) * 3,
    )
    return replace(sample, image=image, boxes=sample.boxes + np.array([left, top] * 2, np.float32))


def window(
    sample: Sample, corner: tuple[int, int], size: tuple[int, int], least: tuple[float, float]
) -> Sample:
    """Crop a window of the sample.

    Args:
        corner: (left, top) of the window.
        size: its (height, width).
        least: area in pixels and share of a box that must remain.
    """
    (left, top), (height, width) = corner, size
    image = np.ascontiguousarray(sample.image[top : top + height, left : left + width])
    return keep_seen(
        replace(sample, image=image, boxes=sample.boxes - np.array([left, top] * 2, np.float32)),
        *least,
    )


def keep_seen(sample: Sample, min_area: float, min_visible: float) -> Sample:
    """Clip the sample's boxes to the image, and drop those of which too little remains.

    Args:
        min_area: square pixels.
        min_visible: share of the area before clipping.
    """
    height, width = sample.size
    before = (sample.boxes[:, 2:] - sample.boxes[:, :2]).prod(1)
    cut = np.clip(sample.boxes, 0, (width, height) * 2).astype(np.float32)
    sides = cut[:, 2:] - cut[:, :2]
    after = sides.prod(1)
    keep = (sides > 0).all(1) & (after >= min_area) & (after >= min_visible * before)
    return keep_boxes(replace(sample, boxes=cut), keep)


@register_augmentation
def color_jitter(
    sample: Sample,
    context: AugmentContext,
    *,
    brightness: float = 0.5,
    contrast: float = 0.5,
    saturation: float = 0.5,
    hue: float = 0.0,
    probability: float = 0.5,
) -> Sample:
    """Change brightness, contrast, saturation and hue one after the other, in random order.

    Args:
        brightness, contrast, saturation: largest deviation of the factor from 1; factors are at
            least 0.
        hue: largest shift in either direction as a fraction of the color circle, up to 0.5.

    Raises: ConfigError for a negative change or a hue beyond 0.5.
    Source: ``ColorJitter`` of torchvision, in the form that albumentations gives it for uint8
        images.
    """
    if min(brightness, contrast, saturation, hue) < 0 or hue > 0.5:
        raise ConfigError(
            "color_jitter: wanted changes of 0 or more and a hue up to 0.5, got brightness "
            f"{brightness}, contrast {contrast}, saturation {saturation}, hue {hue}"
        )
    rng = context.rng
    if rng.random() >= probability:
        return sample
    changes: list[Callable[[np.ndarray], np.ndarray]] = [
        partial(change, factor=rng.uniform(max(0.0, 1 - most), 1 + most))
        for change, most in (
            (adjust_brightness, brightness),
            (adjust_contrast, contrast),
            (adjust_saturation, saturation),
        )
    ]
    changes.append(partial(adjust_hue, shift=rng.uniform(-hue, hue)))
    image = sample.image
    for place in rng.permutation(len(changes)):
        image = changes[place](image)
    return replace(sample, image=image)


def adjust_brightness(image: np.ndarray, factor: float) -> np.ndarray:
    """Return ``factor * image``, clipped to 0..255 and rounded down."""
    return cv2.LUT(image, _table(factor, 0.0))


def adjust_contrast(image: np.ndarray, factor: float) -> np.ndarray:
    """Multiply the distance of every value from the mean gray level by ``factor``; clipped and
    rounded like brightness.
    """
    mean = float(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY).mean())
    return cv2.LUT(image, _table(factor, mean * (1 - factor)))


def adjust_saturation(image: np.ndarray, factor: float) -> np.ndarray:
    """Multiply the distance of every pixel from its own gray level by ``factor``; rounded."""
    gray = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
    return cv2.addWeighted(image, factor, gray, 1 - factor, 0.0)


def adjust_hue(image: np.ndarray, shift: float) -> np.ndarray:
    """Shift every color by ``shift`` of the color circle, in OpenCV's steps of 2 degrees, rounded
    down.
    """
    if shift == 0:
        return image
    colors = cv2.cvtColor(image, cv2.COLOR_BGR2HSV)
    table = ((np.arange(256) + 180 * shift) % 180).astype(np.uint8)
    colors[..., 0] = cv2.LUT(np.ascontiguousarray(colors[..., 0]), table)
    return cv2.cvtColor(colors, cv2.COLOR_HSV2BGR)


def _table(factor: float, offset: float) -> np.ndarray:
    """Return ``factor * level + offset`` for every gray level, as integers within 0..255, (256,)
    uint8.
    """
    return np.clip(
        np.arange(256, dtype=np.float32) * np.float32(factor) + np.float32(offset), 0, 255
    ).astype(np.uint8)
