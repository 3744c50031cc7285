"""The simple YOLO's augmentation: the original's mosaic, and the rules of its albumentations steps
by hand.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
from helpers import Golden
from photos import (
    Script,
    add_photo,
    assert_boxes_follow,
    blocks,
    made_sample,
    plain_photos,
)

from mindyolo_ext.data.augment.registry import AugmentContext
from mindyolo_ext.data.collector import Collector
from mindyolo_ext.data.dataset import Dataset
from mindyolo_ext.data.pipeline import build_pipeline
from mindyolo_ext.data.types import Sample
from mindyolo_ext.models.simple_yolo import augment
from mindyolo_ext.models.simple_yolo.variants import official_input

SPEC = official_input((96, 96))
LEVELS = (40, 80, 160, 220, 250)
RECIPE = ["simple_yolo_mosaic", "simple_yolo_scale_crop", "color_jitter", "horizontal_flip"]


def alternating(image: np.ndarray, boxes: Sequence[Sequence[float]] = ()) -> Sample:
    """A sample whose boxes 1, 3, 5 ... are ignored."""
    return made_sample(image, boxes, [row % 2 == 1 for row in range(len(boxes))])


def using(rng: object, dataset: Dataset | None = None, index: int = 0) -> AugmentContext:
    return AugmentContext(rng, dataset, SPEC, 0, index)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Five plain images, each with one box that covers it and an ignored one inside."""
    sizes = [(64, 96), (96, 96), (192, 96), (24, 48), (96, 48)]
    return plain_photos(tmp_path_factory.mktemp("photos"), sizes, LEVELS)


# ---- mosaic --------------------------------------------------------------------------------------


def test_the_mosaic_equals_the_original(golden: Golden) -> None:
    stored = golden.arrays("simple_yolo/mosaic.npz")
    side = int(stored["img_size"])
    parts = [
        Sample(
            np.ascontiguousarray(stored[f"image{number}"][:, :, ::-1]),
            stored[f"boxes{number}"].astype(np.float32),
            stored[f"classes{number}"][:, 0].astype(np.int64),
            np.zeros(len(stored[f"boxes{number}"]), bool),
            number,
            "",
        )
        for number in range(4)
    ]
    result = augment.join_centered(parts, official_input((side, side)))
    np.testing.assert_array_equal(result.image[:, :, ::-1], stored["canvas"])
    np.testing.assert_allclose(result.boxes / (2 * side), stored["bboxes"], atol=1e-7)
    np.testing.assert_array_equal(result.labels, stored["classes"][:, 0])


def test_a_mosaic_by_hand(photos: Dataset) -> None:
    """Image 2 and the others in the order 4, 0, 3: indices above 2 are one lower there."""
    script = Script(0.0, [3, 0, 2])
    result = augment.simple_yolo_mosaic(photos.load(2), using(script, photos, 2))
    assert script.asked == [(4, 3)] and not script.numbers
    wanted = np.zeros((192, 192), np.uint8)
    wanted[0:96, 48:96] = LEVELS[2]  # 192 x 96 shrunk to 96 x 48, upper left
    wanted[0:96, 96:144] = LEVELS[4]  # 96 x 48 as it is, upper right
    wanted[96:160, 0:96] = LEVELS[0]  # 64 x 96 as it is, lower left
    wanted[96:144, 96:192] = LEVELS[3]  # 24 x 48 enlarged to 48 x 96, lower right
    np.testing.assert_array_equal(result.image, np.repeat(wanted[:, :, None], 3, 2))
    np.testing.assert_allclose(
        result.boxes[::2], [[48, 0, 96, 96], [96, 0, 144, 96], [0, 96, 96, 160], [96, 96, 192, 144]]
    )
    np.testing.assert_allclose(result.boxes[7], [98, 98, 190, 142])
    assert (
        result.labels.tolist() == [2, 2, 4, 4, 0, 0, 3, 3]
        and result.ignore.tolist() == [False, True] * 4
    )


def test_the_others_of_a_mosaic_are_three_different_ones(photos: Dataset) -> None:
    seen = set()
    for seed in range(40):
        labels = augment.simple_yolo_mosaic(
            photos.load(1), using(np.random.default_rng(seed), photos, 1)
        ).labels[::2]
        assert labels[0] == 1 and len(set(labels.tolist())) == 4
        seen.update(labels[1:].tolist())
    assert seen == {0, 2, 3, 4}


def test_the_photo_alone_lies_in_the_middle(photos: Dataset) -> None:
    result = augment.simple_yolo_mosaic(
        photos.load(3), using(Script(0.5), photos, 3), probability=0.5
    )
    canvas, _ = SPEC.resize_image(photos.load(3).image)
    np.testing.assert_array_equal(result.image, canvas)
    np.testing.assert_allclose(result.boxes, [[0, 24, 96, 72], [2, 26, 94, 70]])
    assert (canvas[:24] == 0).all() and (canvas[24:72] == LEVELS[3]).all()


@pytest.mark.parametrize("count", [1, 2, 3])
def test_small_data_sets_leave_quarters_empty(tmp_path: Path, count: int) -> None:
    collector = Collector("few", ["a"], relative=False, tolerance=0)
    for number in range(count):
        add_photo(
            collector,
            tmp_path / f"{number}.png",
            np.full((96, 96, 3), 200, np.uint8),
            [(0, 0, 9, 9)] if number else [],
            image_id=number,
        )
    dataset = collector.finish()
    result = augment.simple_yolo_mosaic(
        dataset.load(0), using(np.random.default_rng(0), dataset, 0)
    )
    assert (result.image == 200).mean() == count / 4 and result.boxes.shape == (count - 1, 4)


# ---- scale and crop ------------------------------------------------------------------------------


def test_scaling_and_window_by_hand() -> None:
    """80 x 90 times 1.5 is 120 x 135: the window can move by 24 and 39."""
    sample = blocks()
    script = Script(0.4, 1.5, 20, 30)
    result = augment.simple_yolo_scale_crop(sample, using(script))
    assert script.asked == [(0.5, 2.0), (0, 25), (0, 40)] and not script.numbers
    whole = cv2.resize(sample.image, (135, 120), interpolation=cv2.INTER_LINEAR)
    np.testing.assert_array_equal(result.image, whole[20:116, 30:126])
    np.testing.assert_allclose(result.boxes, [[0, 0, 15, 31], [45, 0, 90, 25], [30, 55, 60, 85]])
    assert result.labels.tolist() == [0, 1, 2] and result.ignore.tolist() == [False, True, False]


def test_what_is_smaller_than_the_window_is_padded() -> None:
    """80 x 90 times 0.7 is 56 x 62 (truncated): 20 above and below, 17 on both sides, and the
    window cannot move.
    """
    script = Script(0.4, 0.7, 0, 0)
    result = augment.simple_yolo_scale_crop(blocks(), using(script))
    assert script.asked[1:] == [(0, 1), (0, 1)]
    assert (
        result.image.shape == (96, 96, 3)
        and not result.image[:20].any()
        and not result.image[76:].any()
    )
    np.testing.assert_array_equal(result.image[20:76, 17:79], cv2.resize(blocks().image, (62, 56)))
    np.testing.assert_allclose(
        result.boxes[0], [17 + 6 * 62 / 90, 27, 17 + 30 * 62 / 90, 20 + 34 * 0.7], rtol=1e-6
    )
    odd = augment.padded(alternating(np.ones((95, 93, 3), np.uint8), [[0, 0, 93, 95]]), (96, 96), 7)
    assert (
        odd.boxes.tolist() == [[1, 0, 94, 95]]
        and (odd.image[95] == 7).all()
        and (odd.image[0, 1:94] == 1).all()
    )


def test_without_scaling_a_window_is_taken_all_the_same() -> None:
    script = Script(0.5, 3, 7)
    sample = alternating(
        np.random.default_rng(0).integers(0, 256, (192, 192, 3)).astype(np.uint8), [[7, 3, 60, 50]]
    )
    result = augment.simple_yolo_scale_crop(sample, using(script))
    np.testing.assert_array_equal(result.image, sample.image[3:99, 7:103])
    assert result.boxes.tolist() == [[0, 0, 53, 47]] and not np.shares_memory(
        result.image, sample.image
    )


@pytest.mark.parametrize("seed", range(5))
def test_boxes_follow_the_pixels(seed: int) -> None:
    context = using(np.random.default_rng(seed))
    assert_boxes_follow(augment.simple_yolo_scale_crop(blocks(), context, probability=1.0), 1.01)


def test_what_is_left_of_a_box_decides() -> None:
    boxes = [
        [-100, 10, 10, 30],
        [-2000, 10, 20, 30],
        [-1900, 10, 20, 30],
        [0, 0, 3, 3],
        [0, 0, 2, 5],
        [96, 0, 99, 9],
        [20, 20, 20, 40],
    ]
    result = augment.keep_seen(alternating(np.zeros((96, 96, 3), np.uint8), boxes), 10.0, 0.01)
    # 1 keeps 20 / 2020 of its area, 2 keeps 20 / 1920; 3 has 9 square pixels, 4 has 10; 5 is
    # outside, 6 is empty
    assert result.labels.tolist() == [0, 2, 4] and result.ignore.tolist() == [False, False, False]
    assert result.boxes.tolist() == [[0, 10, 10, 30], [0, 10, 20, 30], [0, 0, 2, 5]]
    assert augment.keep_seen(
        alternating(np.zeros((96, 96, 3), np.uint8), boxes), 0.0, 0.0
    ).labels.tolist() == [0, 1, 2, 3, 4]


def test_the_area_counts_after_the_scaling() -> None:
    sample = alternating(np.zeros((80, 90, 3), np.uint8), [[40, 40, 44, 44], [40, 40, 42, 44]])
    assert (
        augment.simple_yolo_scale_crop(sample, using(Script(0.0, 0.7, 0, 0))).labels.tolist() == []
    )
    assert augment.simple_yolo_scale_crop(
        sample, using(Script(0.0, 1.0, 0, 0))
    ).labels.tolist() == [0]
    assert augment.simple_yolo_scale_crop(
        sample, using(Script(0.0, 1.5, 0, 0))
    ).labels.tolist() == [0, 1]


# ---- perspective ---------------------------------------------------------------------------------


def test_perspective_moves_points_inside_to_the_corners() -> None:
    sample = blocks()
    sample = Sample(
        sample.image,
        np.array([[9, 8, 81, 72]], np.float32),
        np.zeros(1, int),
        np.zeros(1, bool),
        1,
        "",
    )
    script = Script(0.0, 0.07, [[0.1, -0.1], [-0.1, 0.42], [0.1, 0.1], [0.1, 0.1]])
    result = augment.simple_yolo_perspective(sample, using(script), probability=1.0)
    assert script.asked == [(0.05, 0.1), (0.0, 0.07)]  # 0.42 is taken modulo 0.32
    np.testing.assert_allclose(result.boxes, [[0, 0, 90, 80]], atol=1e-3)
    assert result.image.shape == sample.image.shape
    assert augment.simple_yolo_perspective(sample, using(Script(0.5))) is sample


@pytest.mark.parametrize("seed", range(3))
def test_boxes_follow_the_pixels_in_perspective(seed: int) -> None:
    result = augment.simple_yolo_perspective(
        blocks(), using(np.random.default_rng(seed)), scale=(0.05, 0.05), probability=1.0
    )
    assert len(result.boxes) >= 2
    assert_boxes_follow(result, 2.5)  # frames of tilted blocks


# ---- colors -------------------------------------------------------------------------------------

PIXELS = np.array([[[0, 0, 0], [255, 255, 255], [10, 60, 200], [100, 101, 102]]], np.uint8)  # BGR


def test_brightness_and_contrast_by_hand() -> None:
    np.testing.assert_array_equal(
        augment.adjust_brightness(PIXELS, 1.5)[0],
        [[0, 0, 0], [255] * 3, [15, 90, 255], [150, 151, 153]],
    )
    np.testing.assert_array_equal(
        augment.adjust_brightness(PIXELS, 0.5)[0, 2:], [[5, 30, 100], [50, 50, 51]]
    )
    gray = [0, 255, 96, 101]  # 0.114 B + 0.587 G + 0.299 R, rounded
    mean = sum(gray) / 4
    np.testing.assert_array_equal(
        augment.adjust_contrast(PIXELS, 0.5), (PIXELS * 0.5 + mean * 0.5).astype(np.uint8)
    )
    np.testing.assert_array_equal(
        augment.adjust_contrast(PIXELS, 1.5),
        np.clip(PIXELS * 1.5 - mean * 0.5, 0, 255).astype(np.uint8),
    )


def test_saturation_and_hue_by_hand() -> None:
    np.testing.assert_array_equal(
        augment.adjust_saturation(PIXELS, 0.0)[0], [[v] * 3 for v in (0, 255, 96, 101)]
    )
    np.testing.assert_array_equal(augment.adjust_saturation(PIXELS, 1.5)[0, 2], [0, 42, 252])
    primaries = np.array([[[0, 0, 255], [0, 255, 0], [255, 0, 0]]], np.uint8)  # red, green, blue
    np.testing.assert_array_equal(augment.adjust_hue(primaries, 1 / 3), primaries[:, [1, 2, 0]])
    np.testing.assert_array_equal(augment.adjust_hue(primaries, -1 / 3), primaries[:, [2, 0, 1]])


@pytest.mark.parametrize(
    "function", [augment.adjust_brightness, augment.adjust_contrast, augment.adjust_saturation]
)
def test_a_factor_of_one_changes_nothing(
    function: Callable[[np.ndarray, float], np.ndarray],
) -> None:
    image = np.random.default_rng(0).integers(0, 256, (9, 11, 3)).astype(np.uint8)
    np.testing.assert_array_equal(function(image, 1.0), image)


def test_jitter_applies_its_changes_in_the_order_drawn() -> None:
    image = np.random.default_rng(0).integers(0, 256, (20, 30, 3)).astype(np.uint8)
    script = Script(0.4, 0.6, 1.4, 0.8, 0.2, [2, 0, 3, 1])
    result = augment.color_jitter(alternating(image), using(script), hue=0.25)
    assert script.asked == [(0.5, 1.5)] * 3 + [(-0.25, 0.25)] and not script.numbers
    wanted = augment.adjust_brightness(augment.adjust_saturation(image, 0.8), 0.6)
    wanted = augment.adjust_contrast(augment.adjust_hue(wanted, 0.2), 1.4)
    np.testing.assert_array_equal(result.image, wanted)
    assert augment.color_jitter(alternating(image), using(Script(0.5))).image is image
    script = Script(0.0, 1.0, 1.0, 1.0, 0.0, [0, 1, 2, 3])
    np.testing.assert_array_equal(
        augment.color_jitter(alternating(image), using(script), brightness=1.7).image, image
    )
    assert script.asked[0] == (0.0, 2.7)


@pytest.mark.parametrize("keywords", [{"brightness": -0.1}, {"saturation": -1}, {"hue": 0.6}])
def test_jitter_refuses_what_is_no_range(keywords: dict[str, float]) -> None:
    with pytest.raises(
        ValueError, match="color_jitter: wanted changes of 0 or more and a hue up to 0.5"
    ):
        augment.color_jitter(blocks(), using(np.random.default_rng(0)), **keywords)


# ---- the recipe ----------------------------------------------------------------------------------


def test_the_recipe_fills_the_input_and_keeps_its_promise(shapes: Dataset) -> None:
    pipeline = build_pipeline(RECIPE, SPEC, shapes, seed=1)
    assert pipeline.max_boxes == min(4 * shapes.max_boxes(), 160)
    capped = build_pipeline([RECIPE[0], {"name": RECIPE[1], "max_boxes": 3}], SPEC, shapes)
    assert capped.max_boxes == 3
    for index in range(8):
        side = 128 if index % 2 else 96
        prepared = pipeline(index, size=(side, side))
        assert prepared.image.shape == (side, side, 3)
        assert (prepared.placement.scale_x, prepared.placement.pad_x, prepared.placement.pad_y) == (
            1,
            0,
            0,
        )
        boxes = prepared.boxes
        assert boxes.dtype == np.float32 and (boxes >= 0).all() and (boxes <= side).all()
        assert ((boxes[:, 2:] - boxes[:, :2]).prod(1) >= 10).all()
        assert len(capped(index).boxes) <= 3


def test_the_recipe_is_a_function_of_seed_epoch_and_index(shapes: Dataset) -> None:
    steps = [
        "simple_yolo_mosaic",
        {"name": "simple_yolo_perspective", "probability": 1.0},
        {"name": "random_affine", "degrees": 90, "translate": 0.0, "scale": [1.0, 1.0]},
        *RECIPE[1:],
    ]
    pipeline = build_pipeline(steps, SPEC, shapes, seed=4)
    first = pipeline(3, 2)
    pipeline(5, 0)
    again = build_pipeline(steps, SPEC, shapes, seed=4)(3, 2)
    np.testing.assert_array_equal(again.image, first.image)
    np.testing.assert_array_equal(again.boxes, first.boxes)
    for other in (
        pipeline(3, 1),
        pipeline(4, 2),
        build_pipeline(steps, SPEC, shapes, seed=5)(3, 2),
    ):
        assert (other.image != first.image).any()
