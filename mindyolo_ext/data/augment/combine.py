"""Augmentations that combine several images. Uses NumPy and OpenCV only."""

from dataclasses import replace

import cv2
import numpy as np

from mindyolo_ext.data.augment.boxes import keep_visible
from mindyolo_ext.data.augment.canvas import around, paint
from mindyolo_ext.data.augment.registry import AugmentContext, register_augmentation
from mindyolo_ext.data.types import Sample


def load_other(context: AugmentContext) -> Sample:
    """Load a random image of the data set."""
    return context.dataset.load(int(context.rng.integers(len(context.dataset))))


@register_augmentation(images=4, is_mosaic=True)
def mosaic(
    sample: Sample,
    context: AugmentContext,
    *,
    center: tuple[float, float] = (0.25, 0.75),
    min_visible: float = 0.1,
    min_side: float = 2.0,
    probability: float = 1.0,
) -> Sample:
    """Combine four photos around a random point into an image of the network's size.

    Each photo is scaled to fit into the network's size with its aspect ratio, and touches the point
    with one corner; empty areas get the padding's gray. Boxes are clipped, see ``random_affine``.

    Args:
        center: range of the point, as a fraction of width and height.
        min_visible, min_side: see ``random_affine``.
    """
    rng, (height, width) = context.rng, context.input_spec.size
    if rng.random() >= probability:
        return sample
    point_x, point_y = (int(rng.uniform(*center) * side) for side in (width, height))
    parts = [sample, load_other(context), load_other(context), load_other(context)]
    fitted = [_fitted(part, (height, width)) for part in parts]
    corners = around((point_x, point_y), [part.size for part in fitted])
    canvas = np.full((height, width, 3), context.input_spec.pad_value, np.uint8)
    for part, corner in zip(fitted, corners, strict=True):
        paint(canvas, part.image, corner)
    moved = [
        part.boxes + np.array(corner * 2, np.float32)
        for part, corner in zip(fitted, corners, strict=True)
    ]
    joined = replace(
        sample,
        image=canvas,
        boxes=np.concatenate(moved),
        labels=np.concatenate([part.labels for part in parts]),
        ignore=np.concatenate([part.ignore for part in parts]),
    )
    return keep_visible(joined, min_visible, min_side)


def _fitted(sample: Sample, size: tuple[int, int]) -> Sample:
    """Scale the sample to fit into ``size`` (height, width), with sides rounded to whole pixels."""
    height, width = sample.size
    factor = min(size[0] / height, size[1] / width)
    new_h, new_w = (max(1, round(side * factor)) for side in (height, width))
    scale = np.array([new_w / width, new_h / height] * 2, np.float32)
    return replace(
        sample, image=cv2.resize(sample.image, (new_w, new_h)), boxes=sample.boxes * scale
    )


@register_augmentation(images=2)
def mixup(
    sample: Sample, context: AugmentContext, *, alpha: float = 8.0, probability: float = 0.5
) -> Sample:
    """Blend the image with another one, which is scaled to fit into it, and keep the boxes of both.

    Args:
        alpha: parameter of the symmetric beta distribution of the first image's share; larger
            values give shares closer to one half.

    Source: mixup, arXiv:1710.09412. As usual for detectors, labels are not weighted by the share.
    """
    if context.rng.random() >= probability:
        return sample
    share = float(context.rng.beta(alpha, alpha))
    other = load_other(context)
    frame = replace(context.input_spec, size=sample.size, stride=1, resize="letterbox")
    image, placement = frame.resize_image(other.image)
    return replace(
        sample,
        image=cv2.addWeighted(sample.image, share, image, 1 - share, 0.0),
        boxes=np.concatenate([sample.boxes, placement.to_network(other.boxes)]),
        labels=np.concatenate([sample.labels, other.labels]),
        ignore=np.concatenate([sample.ignore, other.ignore]),
    )
