"""Augmentations and the pipeline."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from helpers import Golden

from mindyolo_ext.data import transforms
from mindyolo_ext.data.dataset import Collector, Dataset, Sample
from mindyolo_ext.data.image_file import write_image
from mindyolo_ext.data.loader import targets_of
from mindyolo_ext.data.transforms import (
    AugmentContext,
    adjust_contrast,
    build_pipeline,
    list_transforms,
)
from mindyolo_ext.input_spec import InputSpec

SPEC = InputSpec(size=(64, 96), resize="stretch")


def context(
    dataset: Dataset | None = None, seed: int = 0, spec: InputSpec = SPEC
) -> AugmentContext:
    return AugmentContext(np.random.default_rng(seed), dataset, spec, 0, 0)


def bright_boxes(height: int = 60, width: int = 100) -> Sample:
    """Black, with a differently bright block inside each of three boxes."""
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
    """xyxy of the pixels within 25 grey levels of ``level``."""
    hit = np.abs(image[:, :, 0].astype(int) - level) < 25
    rows, columns = np.flatnonzero(hit.any(1)), np.flatnonzero(hit.any(0))
    return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])


def test_contrast_equals_the_original(golden: Golden) -> None:
    stored = golden.arrays("yolo_fastestv2/augment.npz")
    for (alpha, beta), wanted in zip(stored["alpha_beta"], stored["output"], strict=True):
        np.testing.assert_array_equal(
            adjust_contrast(stored["image"], float(alpha), float(beta)), wanted
        )


def test_preprocessing_equals_the_original(golden: Golden, tmp_path: Path) -> None:
    stored = golden.arrays("yolo_fastestv2/preprocess.npz")
    write_image(tmp_path / "a.png", stored["image"])
    height, width = stored["image"].shape[:2]
    collector = Collector("golden", [str(label) for label in range(80)], relative=True, tolerance=0)
    rows = stored["labels"][:, 1:].astype(np.float64)
    boxes = np.concatenate([rows[:, 1:3] - rows[:, 3:] / 2, rows[:, 1:3] + rows[:, 3:] / 2], 1)
    collector.add(
        str(tmp_path / "a.png"),
        1,
        None,
        boxes=boxes,
        labels=rows[:, 0].astype(int),
        ignore=[False, False],
        where=["", ""],
    )
    spec = InputSpec(size=(352, 352), resize="stretch")
    prepared = build_pipeline([], spec, collector.finish())(0)
    # the arrays were made with OpenCV 5, other versions may round a resized pixel the other way
    difference = np.abs(
        prepared.sample.image.transpose(2, 0, 1)[None].astype(int) - stored["loader_output"]
    )
    assert difference.max() <= 1
    np.testing.assert_array_equal(
        spec.to_tensor(stored["loader_output"][0].transpose(1, 2, 0)), stored["input"][0]
    )
    np.testing.assert_allclose(targets_of(prepared.sample), stored["labels"][:, 1:], atol=1e-6)
    np.testing.assert_allclose(
        (1 / prepared.placement.scale_x, 1 / prepared.placement.scale_y), stored["scale_wh"]
    )
    assert (height, width) == (prepared.placement.height, prepared.placement.width)


@pytest.mark.parametrize("name", ["contrast_brightness", "motion_blur", "down_up_scale", "hsv"])
def test_colour_steps_keep_boxes_and_change_pixels(name: str, shapes: Dataset) -> None:
    sample = shapes.load(0)
    function = getattr(transforms, name)
    result = function(sample, context(), probability=1.0)
    np.testing.assert_array_equal(result.boxes, sample.boxes)
    assert result.image.shape == sample.image.shape and result.image.dtype == np.uint8
    assert (result.image != sample.image).mean() > 0.1
    assert function(sample, context(), probability=0.0) is sample


def test_contrast_draws_alpha_and_beta_apart(shapes: Dataset) -> None:
    sample = shapes.load(0)
    result = transforms.contrast_brightness(sample, context(), alpha=(1, 1), beta=(7, 7))
    np.testing.assert_array_equal(result.image, np.clip(sample.image.astype(int) + 7, 0, 255))
    result = transforms.contrast_brightness(sample, context(), alpha=(2, 2), beta=(0, 0))
    np.testing.assert_array_equal(result.image, np.clip(sample.image.astype(int) * 2, 0, 255))


def test_hsv_gains() -> None:
    sample = replace(empty(), image=np.full((8, 8, 3), (60, 120, 200), np.uint8))
    np.testing.assert_allclose(
        transforms.hsv(sample, context(), hue=0, saturation=0, value=0).image, sample.image, atol=2
    )
    changed = transforms.hsv(sample, context(), hue=0, saturation=0, value=0.5).image
    before, after = (
        cv2.cvtColor(image, cv2.COLOR_BGR2HSV)[0, 0].astype(int)
        for image in (sample.image, changed)
    )
    assert (
        abs(before[0] - after[0]) <= 2
        and abs(before[1] - after[1]) <= 3
        and abs(before[2] - after[2]) > 5
    )


def test_motion_blur_keeps_the_mean_and_widens_an_edge() -> None:
    image = np.zeros((21, 21, 3), np.uint8)
    image[10, 10] = 240
    for seed in range(8):
        result = transforms.motion_blur(
            replace(empty(), image=image), context(seed=seed), probability=1, length=(3, 3)
        )
        assert abs(int(result.image.astype(int).sum()) - 720) <= 9 and result.image.max() < 240
        rows, columns = np.nonzero(result.image[:, :, 0])
        assert abs(rows.mean() - 10) < 1e-6 and abs(columns.mean() - 10) < 1e-6


@pytest.mark.parametrize(
    ("flip", "axis"), [(transforms.horizontal_flip, 1), (transforms.vertical_flip, 0)]
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
        result = transforms.random_affine(
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
            # corners of a turned block lose pixels
            np.testing.assert_allclose(frame, box, atol=2.2)
            seen += 1
    assert seen >= 10


def test_affine_without_change_is_exact() -> None:
    result = transforms.random_affine(bright_boxes(), context(), translate=0, scale=(1, 1))
    np.testing.assert_array_equal(result.image, bright_boxes().image)
    np.testing.assert_allclose(result.boxes, bright_boxes().boxes, atol=1e-4)
    half = transforms.random_affine(
        bright_boxes(), context(spec=replace(SPEC, pad_value=0)), translate=0, scale=(0.5, 0.5)
    )
    np.testing.assert_allclose(half.boxes[0], [30, 25, 40, 35], atol=1e-4)
    assert (half.image[25:35, 30:40] == 100).all()
    assert not half.image[25:35, 29].any() and not half.image[24, 30:40].any()


def test_boxes_that_leave_are_dropped() -> None:
    sample = bright_boxes()
    sample.boxes = np.array([[-30, 0, 10, 20], [-5, 0, 35, 20], [50, 50, 51, 90]], np.float32)
    result = transforms.keep_visible(sample, 0.5, 2.0)
    np.testing.assert_array_equal(result.boxes, [[0, 0, 35, 20]])
    np.testing.assert_array_equal(result.labels, [0])
    np.testing.assert_array_equal(result.ignore, [True])


def test_crop_moves_boxes_with_pixels() -> None:
    for seed in range(6):
        result = transforms.random_crop(
            bright_boxes(), context(seed=seed), probability=1.0, min_visible=0.01
        )
        assert result.image.shape[0] <= 60 and result.image.shape[1] <= 100
        for box, label in zip(result.boxes, result.labels, strict=True):
            np.testing.assert_array_equal(
                frame_of(result.image, 100 + 60 * [2, 0, 1].index(label)), box
            )
    with pytest.raises(ValueError, match="scale must lie in 0..1"):
        transforms.random_crop(bright_boxes(), context(), scale=(0.5, 1.5))


@pytest.mark.parametrize("name", [name for name in list_transforms() if name != "resize"])
def test_every_step_takes_no_box_and_leaves_its_sample_alone(name: str, shapes: Dataset) -> None:
    function = getattr(transforms, name)
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


def test_mosaic_puts_four_pictures_around_the_point(tmp_path: Path) -> None:
    collector = Collector("levels", ["a", "b", "c", "d"], relative=False, tolerance=0)
    for label in range(4):
        write_image(tmp_path / f"{label}.png", np.full((64, 96, 3), 40 + 50 * label, np.uint8))
        collector.add(
            str(tmp_path / f"{label}.png"),
            label + 1,
            (64, 96),
            boxes=[(0, 0, 96, 64)],
            labels=[label],
            ignore=[False],
            where=[""],
        )
    dataset = collector.finish()
    result = transforms.mosaic(dataset.load(1), context(dataset, 5))
    assert result.image.shape == (64, 96, 3) and len(result.boxes) == 4 and result.labels[0] == 1
    assert result.boxes[:, :2].min() == 0 and (result.boxes.max(0)[2:] == (96, 64)).all()
    areas = (result.boxes[:, 2:] - result.boxes[:, :2]).prod(1)
    assert areas.sum() == 64 * 96
    for box, label in zip(result.boxes.astype(int), result.labels, strict=True):
        assert (result.image[box[1] : box[3], box[0] : box[2]] == 40 + 50 * label).all()


def test_mixup_blends_and_keeps_both_boxes(shapes: Dataset) -> None:
    sample = shapes.load(0)
    result = transforms.mixup(sample, context(shapes, 1), probability=1.0)
    rng = np.random.default_rng(1)
    rng.random()
    share, other = rng.beta(8.0, 8.0), shapes.load(int(rng.integers(19)))
    np.testing.assert_allclose(
        result.image, share * sample.image + (1 - share) * other.image, atol=0.6
    )
    np.testing.assert_allclose(result.boxes, np.concatenate([sample.boxes, other.boxes]), atol=1e-3)


def test_pipeline_depends_on_seed_epoch_and_index_only(shapes: Dataset) -> None:
    steps = ["mosaic", {"name": "random_affine", "degrees": 10}, "hsv"]
    pipeline = build_pipeline(steps, SPEC, shapes, seed=4)
    first = pipeline(3, 2)
    pipeline(5, 0)
    np.testing.assert_array_equal(pipeline(3, 2).sample.image, first.sample.image)
    np.testing.assert_array_equal(
        build_pipeline(steps, SPEC, shapes, seed=4)(3, 2).sample.boxes, first.sample.boxes
    )
    for other in (
        pipeline(3, 1),
        pipeline(4, 2),
        build_pipeline(steps, SPEC, shapes, seed=5)(3, 2),
    ):
        assert (other.sample.image != first.sample.image).any()


def test_resize_comes_last_or_where_it_stands(shapes: Dataset) -> None:
    assert [name for name, _ in build_pipeline(["hsv"], SPEC, shapes).steps] == ["hsv", "resize"]
    assert [name for name, _ in build_pipeline(["resize", "hsv"], SPEC, shapes).steps] == [
        "resize",
        "hsv",
    ]
    prepared = build_pipeline([], SPEC, shapes)(0)
    assert prepared.sample.image.shape == (64, 96, 3)
    np.testing.assert_allclose(
        prepared.placement.to_photo(prepared.sample.boxes), shapes.load(0).boxes, atol=1e-3
    )
    assert build_pipeline([], SPEC, shapes)(0, size=(96, 128)).sample.image.shape == (96, 128, 3)
    with pytest.raises(ValueError, match="steps after resize must keep the size"):
        build_pipeline(
            ["resize", {"name": "random_crop", "probability": 1.0, "scale": [0.5, 0.6]}],
            SPEC,
            shapes,
        )(0)


def test_box_bound_counts_combined_pictures(shapes: Dataset) -> None:
    assert build_pipeline(["hsv"], SPEC, shapes).max_boxes == shapes.max_boxes()
    assert build_pipeline(["mosaic", "mixup"], SPEC, shapes).max_boxes == 8 * shapes.max_boxes()


@pytest.mark.parametrize(
    ("step", "error", "message"),
    [
        (
            {"name": "horisontal_flip"},
            ValueError,
            "step 2: unknown name 'horisontal_flip', did you mean horizontal_flip",
        ),
        ({"probability": 1}, ValueError, "unknown name None"),
        ({"name": "hsv", "hu": 0.1}, ValueError, r"\(hsv\): unknown keyword hu, did you mean hue"),
        ({"name": "resize", "size": 3}, ValueError, r"\(resize\): unknown keyword size"),
        ({"name": "hsv", "probability": 1.5}, ValueError, r"probability must lie in 0..1, got 1.5"),
        ({"name": "hsv", "hue": "0.1"}, TypeError, r"hue must be a number, got '0.1'"),
        (
            {"name": "random_affine", "scale": 0.5},
            ValueError,
            r"scale must be a range \[low, high\], got 0.5",
        ),
        ({"name": "random_affine", "scale": [1.5, 0.5]}, ValueError, "must be a range"),
        ("resize", ValueError, "resize at most once"),
    ],
)
def test_faulty_steps(shapes: Dataset, step: object, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        build_pipeline(["resize", step], SPEC, shapes)


def test_registering_checks_name_and_keywords() -> None:
    def hsv(sample: Sample, _: AugmentContext) -> Sample:
        return sample

    def positional(sample: Sample, _: AugmentContext, gain: float = 1.0) -> Sample:
        return replace(sample, image=sample.image * gain)

    with pytest.raises(ValueError, match="already a step hsv"):
        transforms.register_transform(hsv)
    with pytest.raises(TypeError, match="gain must be keyword-only"):
        transforms.register_transform(positional)
