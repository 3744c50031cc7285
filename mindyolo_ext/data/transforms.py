"""Augmentations, one function each, and the pipeline that applies them. NumPy and OpenCV only.

An augmentation is a function ``f(sample, context, *, keywords) -> sample`` decorated with
``@register_transform``; its name is the step's name in a configuration. It returns a new sample and
never writes into the one it got, draws every random number from ``context.rng``, and may load
further pictures through ``context.dataset``. The augmentations of single families stand in their
folders; ``models.registry.load_augmentations`` makes them known.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np

from mindyolo_ext.data.canvas import mirror
from mindyolo_ext.data.dataset import Dataset, Sample, did_you_mean
from mindyolo_ext.data.transform_registry import (
    PHOTO_STEPS,
    POLYGON_STEPS,
    TRANSFORMS,
    AugmentContext,
    list_transforms,
    register_transform,
    transform_defaults,
)
from mindyolo_ext.input_spec import InputSpec, Placement

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Prepared:
    """A picture ready for a batch: ``sample`` in pixels of the network input, and the ``placement``
    of the picture that was resized (the photo itself unless a geometric step came before).
    """

    sample: Sample
    placement: Placement


class Pipeline:
    """Loads a picture and applies the steps in order; ``build_pipeline`` makes it."""

    def __init__(
        self,
        steps: Sequence[tuple[str, dict[str, Any]]],
        input_spec: InputSpec,
        dataset: Dataset,
        seed: int = 0,
    ):
        self.steps = list(steps)
        self.input_spec = input_spec
        self.dataset = dataset
        self.seed = seed

    def __call__(self, index: int, epoch: int = 0, size: tuple[int, int] | None = None) -> Prepared:
        """Picture ``index`` as ``epoch`` sees it.

        Args:
            index: of the data set.
            epoch: part of the random seed.
            size: (height, width) instead of the spec's, for training at several sizes and
                rectangular evaluation.

        Raises: what the files and steps raise.
        """
        spec = self.input_spec if size is None else self.input_spec.in_frame(size)
        rng = np.random.default_rng([self.seed, epoch, index, 2])
        context = AugmentContext(rng, self.dataset, spec, epoch, index)
        sample, placement = self.dataset.load(index), None
        for name, keywords in self.steps:
            if name == "resize":
                image, placement = spec.resize_image(sample.image)
                sample = replace(sample, image=image, boxes=placement.to_network(sample.boxes))
            else:
                sample = TRANSFORMS[name][0](sample, context, **keywords)
        if placement is None or sample.image.shape != (*spec.size, 3):
            raise ValueError(
                f"pipeline: wanted an image {(*spec.size, 3)} after the last step, got "
                f"{sample.image.shape}: steps after resize must keep the size"
            )
        return Prepared(sample, placement)

    @property
    def max_boxes(self) -> int:
        """The largest number of boxes that one picture may come out with, ignored ones left out.

        Steps that combine pictures multiply the data set's maximum, a step with a keyword
        ``max_boxes`` cuts it.
        """
        most = self.dataset.max_boxes()
        for name, keywords in self.steps:
            if name != "resize":
                most *= TRANSFORMS[name][1]
                most = int(
                    min(most, {**transform_defaults(name), **keywords}.get("max_boxes", most))
                )
        return most


def build_pipeline(
    steps: Sequence[Mapping[str, Any] | str],
    input_spec: InputSpec,
    dataset: Dataset,
    *,
    seed: int = 0,
) -> Pipeline:
    """The pipeline that a configuration describes.

    Args:
        steps: each a mapping with ``name`` and the keywords of that augmentation, or just the name.
            ``resize`` brings the picture to the network's size; it comes last unless the list says
            otherwise.
        input_spec: of the model. Pictures that other steps than ``resize`` make fill the input,
            without ``border``.
        dataset: where the pictures come from.
        seed: of all random numbers.

    Raises: ValueError or TypeError for an unknown step or keyword or a value of the wrong kind.
    """
    checked = []
    for number, step in enumerate(steps):
        keywords = {"name": step} if isinstance(step, str) else dict(step)
        name = keywords.pop("name", None)
        where = f"augmentation step {number + 1}"
        if name not in list_transforms():
            raise ValueError(
                f"{where}: unknown name {name!r}{did_you_mean(name, list_transforms())}"
            )
        defaults = transform_defaults(name)
        for key, value in keywords.items():
            if key not in defaults:
                raise ValueError(
                    f"{where} ({name}): unknown keyword {key}{did_you_mean(key, defaults)}"
                )
            keywords[key] = _checked(f"{where} ({name}): {key}", key, value, defaults[key])
        if name in PHOTO_STEPS and number:
            raise ValueError(
                f"{where} ({name}): wanted it first, where pictures are as the data set has them, "
                f"got {checked[-1][0]} before it"
            )
        if name in POLYGON_STEPS and not dataset.has_polygons:
            logger.warning(
                "%s (%s) does nothing: %s has no outlines; COCO json and YOLO text files that hold "
                "some are read with polygons: true",
                where,
                name,
                dataset.name,
            )
        checked.append((name, keywords))
    resizes = [name for name, _ in checked].count("resize")
    if resizes > 1:
        raise ValueError(f"augmentation: wanted resize at most once, got it {resizes} times")
    if len(checked) > resizes:
        input_spec = replace(input_spec, border=None)
    return Pipeline(checked if resizes else [*checked, ("resize", {})], input_spec, dataset, seed)


def _checked(where: str, key: str, value: Any, default: Any) -> Any:
    """``value`` as the kind of ``default``: a range (low, high) or a number; a probability lies
    in 0..1.
    """

    def number(item: Any) -> bool:
        return isinstance(item, (int, float)) and not isinstance(item, bool) and np.isfinite(item)

    if isinstance(default, tuple):
        if (
            not isinstance(value, (list, tuple))
            or len(value) != 2
            or not all(map(number, value))
            or value[0] > value[1]
        ):
            raise ValueError(f"{where} must be a range [low, high], got {value!r}")
        return tuple(value)
    if not number(value):
        raise TypeError(f"{where} must be a number, got {value!r}")
    if key.endswith("probability") and not 0 <= value <= 1:
        raise ValueError(f"{where} must lie in 0..1, got {value!r}")
    return value


def adjust_contrast(image: np.ndarray, alpha: float, beta: float) -> np.ndarray:
    """``alpha * image + beta``, rounded and saturated to uint8; ``beta`` is in grey levels."""
    return cv2.addWeighted(image, alpha, image, 0.0, beta)


@register_transform
def contrast_brightness(
    sample: Sample,
    context: AugmentContext,
    *,
    alpha: tuple[float, float] = (0.25, 1.75),
    beta: tuple[float, float] = (0.25, 1.75),
    probability: float = 1.0,
) -> Sample:
    """The picture with another contrast (factor ``alpha``) and brightness (``beta`` grey levels).

    Source: Yolo-FastestV2 ``utils/datasets.py``. As in the original: ``beta`` is added in grey
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


@register_transform
def motion_blur(
    sample: Sample,
    context: AugmentContext,
    *,
    length: tuple[int, int] = (2, 3),
    probability: float = 0.5,
) -> Sample:
    """The picture blurred along a line of ``length`` pixels in a random direction.

    Source: Yolo-FastestV2 ``utils/datasets.py``, where it is switched off. Unlike the original: the
        kernel sums to one, and the result is not stretched to 0..255, which changed the contrast.
    """
    if context.rng.random() >= probability:
        return sample
    pixels = int(context.rng.integers(int(length[0]), int(length[1]) + 1))
    angle = context.rng.uniform(0, np.pi)
    side = pixels | 1  # odd, so that the picture does not move
    along = np.linspace(-(pixels - 1) / 2, (pixels - 1) / 2, 16 * pixels)
    kernel = np.zeros((side, side), np.float32)
    columns = np.rint(side // 2 + along * np.cos(angle)).astype(int)
    rows = np.rint(side // 2 + along * np.sin(angle)).astype(int)
    np.add.at(kernel, (rows, columns), 1.0)
    return replace(
        sample,
        image=cv2.filter2D(
            sample.image, -1, kernel / kernel.sum(), borderType=cv2.BORDER_REPLICATE
        ),
    )


@register_transform
def down_up_scale(
    sample: Sample,
    context: AugmentContext,
    *,
    scale: tuple[float, float] = (0.8, 1.0),
    probability: float = 1.0,
) -> Sample:
    """The picture resized by random factors and back, which blurs it. Boxes stay.

    Source: Yolo-FastestV2 ``utils/datasets.py``, where it is switched off.
    """
    if context.rng.random() >= probability:
        return sample
    height, width = sample.image.shape[:2]
    small = [max(1, int(side * context.rng.uniform(*scale))) for side in (width, height)]
    return replace(sample, image=cv2.resize(cv2.resize(sample.image, small), (width, height)))


@register_transform
def hsv(
    sample: Sample,
    context: AugmentContext,
    *,
    hue: float = 0.0138,
    saturation: float = 0.678,
    value: float = 0.36,
    probability: float = 1.0,
) -> Sample:
    """The picture with hue, saturation and value multiplied by random factors 1 +- the given gain.

    Source: Yolo-FastestV2 ``utils/datasets.py``, where it is switched off; the same form is in the
    YOLO family.
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


@register_transform
def horizontal_flip(sample: Sample, context: AugmentContext, *, probability: float = 0.5) -> Sample:
    """The picture mirrored left to right."""
    if context.rng.random() >= probability:
        return sample
    return mirror(sample)


@register_transform
def vertical_flip(sample: Sample, context: AugmentContext, *, probability: float = 0.5) -> Sample:
    """The picture mirrored top to bottom."""
    if context.rng.random() >= probability:
        return sample
    x1, y1, x2, y2 = sample.boxes.T
    height = sample.image.shape[0]
    return replace(
        sample,
        image=cv2.flip(sample.image, 0),
        boxes=np.stack([x1, height - y2, x2, height - y1], 1),
    )


@register_transform
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
    """The picture rotated, scaled, sheared and moved about its centre; what becomes empty gets the
    padding's grey.

    Boxes become the upright frames of their moved corners. A box goes if less than ``min_visible``
    of its frame stays in the picture, or if a side is left with less than ``min_side`` pixels.

    Args:
        degrees: largest rotation to either side.
        translate: largest shift as a fraction of width and height.
        scale: range of the factor.
        shear: largest shear angle in degrees along x and y.
    """
    rng = context.rng
    if rng.random() >= probability:
        return sample
    height, width = sample.image.shape[:2]
    angle, factor = np.deg2rad(rng.uniform(-degrees, degrees)), rng.uniform(*scale)
    shear_x, shear_y = np.tan(np.deg2rad(rng.uniform(-shear, shear, 2)))
    shift = rng.uniform(-translate, translate, 2) * (width, height)
    turn = factor * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    linear = np.array([[1, shear_x], [shear_y, 1]]) @ turn  # (2, 2)
    centre = np.array([width, height]) / 2
    offset = centre + shift - linear @ centre
    # OpenCV counts from the middle of the first pixel, boxes from its edge
    matrix = np.column_stack([linear, offset + linear @ (0.5, 0.5) - (0.5, 0.5)])
    image = cv2.warpAffine(
        sample.image, matrix, (width, height), borderValue=(context.input_spec.pad_value,) * 3
    )
    # (N, 4, 2)
    corners = sample.boxes[:, [0, 1, 2, 1, 2, 3, 0, 3]].reshape(-1, 4, 2) @ linear.T + offset
    boxes = np.concatenate([corners.min(1), corners.max(1)], 1)
    return keep_visible(replace(sample, image=image, boxes=boxes), min_visible, min_side)


@register_transform
def random_crop(
    sample: Sample,
    context: AugmentContext,
    *,
    scale: tuple[float, float] = (0.6, 1.0),
    min_visible: float = 0.3,
    min_side: float = 2.0,
    probability: float = 0.5,
) -> Sample:
    """A window of the picture, each side a random fraction in ``scale``; boxes are cut, see
    ``random_affine``.

    Raises: ValueError if ``scale`` does not lie in 0..1.
    """
    if not 0 < scale[0] <= scale[1] <= 1:
        raise ValueError(f"random_crop: scale must lie in 0..1, got {scale}")
    if context.rng.random() >= probability:
        return sample
    sides = np.array(sample.image.shape[:2])
    height, width = np.maximum(1, (sides * context.rng.uniform(*scale, 2)).astype(int))
    top, left = (int(context.rng.integers(0, room + 1)) for room in sides - (height, width))
    image = np.ascontiguousarray(sample.image[top : top + height, left : left + width])
    boxes = sample.boxes - np.array([left, top, left, top], np.float32)
    return keep_visible(replace(sample, image=image, boxes=boxes), min_visible, min_side)


def keep_visible(sample: Sample, min_visible: float, min_side: float) -> Sample:
    """The sample with boxes clipped to the picture, without those that lost too much of their
    area.
    """
    height, width = sample.image.shape[:2]
    clipped = np.clip(sample.boxes, 0, np.array([width, height] * 2))
    sides, before = clipped[:, 2:] - clipped[:, :2], sample.boxes[:, 2:] - sample.boxes[:, :2]
    keep = (sides >= min_side).all(1) & (sides.prod(1) >= min_visible * before.prod(1))
    return replace(
        sample,
        boxes=clipped[keep].astype(np.float32),
        labels=sample.labels[keep],
        ignore=sample.ignore[keep],
    )


def load_other(context: AugmentContext) -> Sample:
    """A random picture of the data set."""
    return context.dataset.load(int(context.rng.integers(len(context.dataset))))


@register_transform(pictures=4)
def mosaic(
    sample: Sample,
    context: AugmentContext,
    *,
    centre: tuple[float, float] = (0.25, 0.75),
    min_visible: float = 0.1,
    min_side: float = 2.0,
    probability: float = 1.0,
) -> Sample:
    """Four pictures around a random point, of the network's size.

    Each is scaled to fit into the network's size with its shape kept, and touches the point with
    one corner; what it leaves empty gets the padding's grey. Boxes are cut, see ``random_affine``.

    Args:
        centre: range of the point, as a fraction of width and height.
    """
    rng, (height, width) = context.rng, context.input_spec.size
    if rng.random() >= probability:
        return sample
    middle_x, middle_y = (int(rng.uniform(*centre) * side) for side in (width, height))
    canvas = np.full((height, width, 3), context.input_spec.pad_value, np.uint8)
    parts = [sample, load_other(context), load_other(context), load_other(context)]
    boxes = []
    for number, part in enumerate(parts):  # upper left, upper right, lower left, lower right
        factor = min(height / part.image.shape[0], width / part.image.shape[1])
        part_h, part_w = (max(1, round(side * factor)) for side in part.image.shape[:2])
        image = cv2.resize(part.image, (part_w, part_h))
        left = middle_x if number % 2 else middle_x - part_w
        top = middle_y if number // 2 else middle_y - part_h
        x1, y1, x2, y2 = (
            max(left, 0),
            max(top, 0),
            min(left + part_w, width),
            min(top + part_h, height),
        )
        canvas[y1:y2, x1:x2] = image[y1 - top : y2 - top, x1 - left : x2 - left]
        scale = np.array(
            [part_w / part.image.shape[1], part_h / part.image.shape[0]] * 2, np.float32
        )
        boxes.append(part.boxes * scale + np.array([left, top] * 2, np.float32))
    joined = replace(
        sample,
        image=canvas,
        boxes=np.concatenate(boxes),
        labels=np.concatenate([part.labels for part in parts]),
        ignore=np.concatenate([part.ignore for part in parts]),
    )
    return keep_visible(joined, min_visible, min_side)


@register_transform(pictures=2)
def mixup(
    sample: Sample, context: AugmentContext, *, alpha: float = 8.0, probability: float = 0.5
) -> Sample:
    """The picture blended with another one, which is scaled to fit into it; the boxes of both.

    Args:
        alpha: of the symmetric beta distribution that gives the share of the first picture; the
            larger, the closer to one half.

    Source: mixup, arXiv:1710.09412. Labels are not weighted with the share, as detectors do it.
    """
    if context.rng.random() >= probability:
        return sample
    share = float(context.rng.beta(alpha, alpha))
    other = load_other(context)
    frame = replace(context.input_spec, size=sample.image.shape[:2], stride=1, resize="letterbox")
    image, placement = frame.resize_image(other.image)
    return replace(
        sample,
        image=cv2.addWeighted(sample.image, share, image, 1 - share, 0.0),
        boxes=np.concatenate([sample.boxes, placement.to_network(other.boxes)]),
        labels=np.concatenate([sample.labels, other.labels]),
        ignore=np.concatenate([sample.ignore, other.ignore]),
    )
