"""Augmentations that families share: boxes move with the pixels, and steps keep their contract."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from launching import ROOT
from photos import plain_photos

from mindyolo_ext.data.augment import color, combine, geometry, outlines
from mindyolo_ext.data.augment.boxes import keep_visible
from mindyolo_ext.data.augment.registry import (
    AugmentContext,
    find_augmentation,
    list_augmentations,
    register_augmentation,
)
from mindyolo_ext.data.dataset import Dataset
from mindyolo_ext.data.types import Sample
from mindyolo_ext.input_spec import InputSpec
from mindyolo_ext.models.registry import families, load_augmentations

SPEC = InputSpec(size=(64, 96), resize="stretch")
SHARED = (
    color.hsv,
    combine.mixup,
    combine.mosaic,
    geometry.horizontal_flip,
    geometry.random_affine,
    geometry.vertical_flip,
    outlines.copy_paste,
)


def context(
    dataset: Dataset | None = None, seed: int = 0, spec: InputSpec = SPEC
) -> AugmentContext:
    return AugmentContext(np.random.default_rng(seed), dataset, spec, 0, 0)


def bright_boxes(height: int = 60, width: int = 100) -> Sample:
    """A black image with a block of different brightness inside each of three boxes."""
    boxes = np.array([[10, 20, 30, 40], [50, 10, 90, 25], [40, 35, 60, 55]], np.float32)
    image = np.zeros((height, width, 3), np.uint8)
    for row, (x1, y1, x2, y2) in enumerate(boxes.astype(int)):
        image[y1:y2, x1:x2] = 100 + 60 * row
    return Sample(image, boxes, np.array([2, 0, 1]), np.array([False, True, False]), 1, "a.png")


def empty() -> Sample:
    return replace(
        bright_boxes(),
        boxes=np.zeros((0, 4), np.float32),
        labels=np.zeros(0, np.int64),
        ignore=np.zeros(0, bool),
    )


def frame_of(image: np.ndarray, level: int) -> np.ndarray:
    """The bounding box, xyxy, of the pixels within 25 gray levels of ``level``."""
    hit = np.abs(image[:, :, 0].astype(int) - level) < 25
    rows, columns = np.flatnonzero(hit.any(1)), np.flatnonzero(hit.any(0))
    return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])


def test_hsv_keeps_boxes_and_changes_pixels(shapes: Dataset) -> None:
    sample = shapes.load(0)
    result = color.hsv(sample, context(), probability=1.0)
    np.testing.assert_array_equal(result.boxes, sample.boxes)
    assert result.image.shape == sample.image.shape and result.image.dtype == np.uint8
    assert (result.image != sample.image).mean() > 0.1
    assert color.hsv(sample, context(), probability=0.0) is sample


def test_hsv_gains() -> None:
    sample = replace(empty(), image=np.full((8, 8, 3), (60, 120, 200), np.uint8))
    np.testing.assert_allclose(
        color.hsv(sample, context(), hue=0, saturation=0, value=0).image, sample.image, atol=2
    )
    changed = color.hsv(sample, context(), hue=0, saturation=0, value=0.5).image
    before, after = (
        cv2.cvtColor(image, cv2.COLOR_BGR2HSV)[0, 0].astype(int)
        for image in (sample.image, changed)
    )
    assert (
        abs(before[0] - after[0]) <= 2
        and abs(before[1] - after[1]) <= 3
        and abs(before[2] - after[2]) > 5
    )


@pytest.mark.parametrize(
    ("flip", "axis"), [(geometry.horizontal_flip, 1), (geometry.vertical_flip, 0)]
)
def test_flip_moves_boxes_with_pixels(flip: Callable[..., Sample], axis: int) -> None:
    result = flip(bright_boxes(), context(), probability=1.0)
    np.testing.assert_array_equal(result.image, np.flip(bright_boxes().image, axis))
    for row, box in enumerate(result.boxes):
        np.testing.assert_array_equal(frame_of(result.image, 100 + 60 * row), box)
    twice = flip(result, context(), probability=1.0)
    np.testing.assert_array_equal(twice.image, bright_boxes().image)
    np.testing.assert_array_equal(twice.boxes, bright_boxes().boxes)


@pytest.mark.parametrize(
    "keywords",
    [
        {"degrees": 0, "translate": 0.1, "scale": (1.0, 1.0)},
        {"degrees": 0, "translate": 0.0, "scale": (0.6, 1.2)},
        {"degrees": 180, "translate": 0.0, "scale": (0.6, 0.7)},
        {"shear": 12, "translate": 0.0, "scale": (0.7, 0.7)},
    ],
)
def test_affine_moves_boxes_with_pixels(keywords: dict) -> None:
    spec = replace(SPEC, pad_value=0)
    seen = 0
    for seed in range(6):
        result = geometry.random_affine(
            bright_boxes(), context(seed=seed, spec=spec), min_visible=0.99, **keywords
        )
        for box, label in zip(result.boxes, result.labels, strict=True):
            level = 100 + 60 * [2, 0, 1].index(label)
            hit = cv2.erode(
                (np.abs(result.image[:, :, 0].astype(int) - level) < 3).astype(np.uint8),
                np.ones((3, 3)),
            )
            rows, columns = np.nonzero(hit)
            frame = np.array([columns.min() - 1, rows.min() - 1, columns.max() + 2, rows.max() + 2])
            # corners of a rotated block lose pixels
            np.testing.assert_allclose(frame, box, atol=2.2)
            seen += 1
    assert seen >= 10


def test_affine_without_change_is_exact() -> None:
    result = geometry.random_affine(bright_boxes(), context(), translate=0, scale=(1, 1))
    np.testing.assert_array_equal(result.image, bright_boxes().image)
    np.testing.assert_allclose(result.boxes, bright_boxes().boxes, atol=1e-4)
    half = geometry.random_affine(
        bright_boxes(), context(spec=replace(SPEC, pad_value=0)), translate=0, scale=(0.5, 0.5)
    )
    np.testing.assert_allclose(half.boxes[0], [30, 25, 40, 35], atol=1e-4)
    assert (half.image[25:35, 30:40] == 100).all()
    assert not half.image[25:35, 29].any() and not half.image[24, 30:40].any()


def test_boxes_that_leave_are_dropped() -> None:
    sample = bright_boxes()
    sample.boxes = np.array([[-30, 0, 10, 20], [-5, 0, 35, 20], [50, 50, 51, 90]], np.float32)
    result = keep_visible(sample, 0.5, 2.0)
    np.testing.assert_array_equal(result.boxes, [[0, 0, 35, 20]])
    np.testing.assert_array_equal(result.labels, [0])
    np.testing.assert_array_equal(result.ignore, [True])


@pytest.mark.parametrize("function", SHARED, ids=lambda function: function.__name__)
def test_every_step_takes_no_box_and_leaves_its_sample_alone(
    function: Callable[..., Sample], shapes: Dataset
) -> None:
    assert function(empty(), context(shapes), probability=1.0).boxes.shape[1] == 4
    for seed in range(4):
        sample = shapes.load(0)
        sample.image.flags.writeable = False
        before = sample.boxes.copy()
        result = function(sample, context(shapes, seed), probability=1.0)
        np.testing.assert_array_equal(sample.boxes, before)
        assert result.boxes.dtype == np.float32 and result.image.dtype == np.uint8
        assert len(result.boxes) == len(result.labels) == len(result.ignore)
        again = function(shapes.load(0), context(shapes, seed), probability=1.0)
        np.testing.assert_array_equal(again.image, result.image)


def test_no_shared_step_is_left_out() -> None:
    own = [name for record in families().values() for name in record.augmentations]
    # test_albumentations.py tests the last one
    shared = {function.__name__ for function in SHARED} | {"resize", "albumentations"}
    assert shared == set(list_augmentations()) - set(own)


def test_mosaic_puts_four_photos_around_the_point(tmp_path: Path) -> None:
    dataset = plain_photos(tmp_path, [(64, 96)] * 4, [40, 90, 140, 190], crowds=False)
    result = combine.mosaic(dataset.load(1), context(dataset, 5))
    assert result.image.shape == (64, 96, 3) and len(result.boxes) == 4 and result.labels[0] == 1
    assert result.boxes[:, :2].min() == 0 and (result.boxes.max(0)[2:] == (96, 64)).all()
    areas = (result.boxes[:, 2:] - result.boxes[:, :2]).prod(1)
    assert areas.sum() == 64 * 96
    for box, label in zip(result.boxes.astype(int), result.labels, strict=True):
        assert (result.image[box[1] : box[3], box[0] : box[2]] == 40 + 50 * label).all()


def test_mixup_blends_and_keeps_both_boxes(shapes: Dataset) -> None:
    sample = shapes.load(0)
    result = combine.mixup(sample, context(shapes, 1), probability=1.0)
    rng = np.random.default_rng(1)
    rng.random()
    share, other = rng.beta(8.0, 8.0), shapes.load(int(rng.integers(19)))
    np.testing.assert_allclose(
        result.image, share * sample.image + (1 - share) * other.image, atol=0.6
    )
    np.testing.assert_allclose(result.boxes, np.concatenate([sample.boxes, other.boxes]), atol=1e-3)


def test_registering_checks_name_and_keywords() -> None:
    def hsv(sample: Sample, _: AugmentContext) -> Sample:
        return sample

    def positional(sample: Sample, _: AugmentContext, gain: float = 1.0) -> Sample:
        return replace(sample, image=sample.image * gain)

    with pytest.raises(ValueError, match="step hsv already exists"):
        register_augmentation(hsv)
    with pytest.raises(TypeError, match="gain must be keyword-only"):
        register_augmentation(positional)


def test_the_page_lists_every_step_with_its_defaults() -> None:
    load_augmentations()
    page = (ROOT / "docs" / "data.md").read_text(encoding="utf-8")
    listed = dict(re.findall(r"^\| `(\w+)` \| ([^|]*) \|$", page, re.M))
    for name in list_augmentations():
        pairs = re.findall(r"(\w+) (\[[^]]*\]|[\d.]+)", listed[name])
        defaults = {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in find_augmentation(name).defaults.items()
        }
        assert {key: yaml.safe_load(value) for key, value in pairs} == defaults, name
