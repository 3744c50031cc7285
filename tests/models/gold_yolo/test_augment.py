"""Gold-YOLO's augmentation: images and boxes move together, by the original's rules, which are
written out again here.
"""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from photos import Script, assert_boxes_follow, blocks, made_sample, one_photo, plain_photos

from mindyolo_ext.data.augment.canvas import Movement, move
from mindyolo_ext.data.augment.registry import AugmentContext
from mindyolo_ext.data.dataset import Dataset
from mindyolo_ext.data.pipeline import build_pipeline
from mindyolo_ext.data.types import Sample
from mindyolo_ext.input_spec import InputSpec
from mindyolo_ext.models.gold_yolo import augment

SPEC = InputSpec(size=(96, 96), color="rgb")
LEVELS = (40, 80, 160, 220)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Four plain images of different shapes, each with one box that covers it and a crowd."""
    sizes = [(64, 96), (96, 96), (120, 60), (31, 50)]
    return plain_photos(tmp_path_factory.mktemp("photos"), sizes, LEVELS)


def run(photos: Dataset, rng: object, index: int = 0, **keywords: object) -> Sample:
    return augment.gold_yolo_mosaic(
        photos.load(index), AugmentContext(rng, photos, SPEC, 0, index), **keywords
    )


STILL = (0.0, 1.0, (0.0, 0.0), (0.5, 0.5))  # angle, factor, shear, target: the middle of the canvas


def test_a_still_mosaic_by_hand(photos: Dataset) -> None:
    """Center (80, 100) on the canvas of 192 x 192, of which the inner 96 x 96 from (48, 48) are
    visible.
    """
    script = Script(0.0, [1, 2, 3], [3, 0, 2, 1], 100.4, 80.9, *STILL, 0.9)
    result = run(photos, script, mixup_probability=0.5)
    assert not script.numbers
    assert script.asked == [(0, 4), (48, 144), (48, 144), (0, 0), (0.5, 1.5), (0, 0), (0.4, 0.6)]
    wanted = np.full((96, 96), 114, np.uint8)
    wanted[0:52, 0:32] = LEVELS[3]  # 31 x 50 -> 59 x 96, upper left of (32, 52) in the window
    wanted[0:52, 32:96] = LEVELS[0]  # 64 x 96 as it is, upper right
    wanted[52:96, 0:32] = LEVELS[2]  # 120 x 60 -> 96 x 48, lower left
    wanted[52:96, 32:96] = LEVELS[1]
    np.testing.assert_array_equal(result.image, np.repeat(wanted[:, :, None], 3, 2))
    assert (
        result.labels.tolist() == [3, 0, 2, 1]
        and not result.ignore.any()
        and result.boxes.dtype == np.float32
    )
    top = 96 - 1e-3
    np.testing.assert_allclose(
        result.boxes,
        [[0, 0, 32, 52], [32, 0, top, 52], [0, 52, 32, top], [32, 52, top, top]],
        atol=1e-4,
    )


def test_the_photo_alone_by_hand(photos: Dataset) -> None:
    """31 x 50 -> 59 x 96: of the 37 padding rows, 18 are above; the box is in the exact middle."""
    script = Script(0.7, *STILL)
    result = run(photos, script, 3, probability=0.5)
    assert not script.numbers
    np.testing.assert_array_equal(
        np.flatnonzero((result.image == LEVELS[3]).all((1, 2))), np.arange(18, 77)
    )
    assert (result.image[:18] == 114).all() and (result.image[77:] == 114).all()
    np.testing.assert_allclose(result.boxes, [[0, 18.5, 96 - 1e-3, 77.5]], atol=1e-4)


def test_a_side_that_the_cut_made_too_short_is_fitted_again(tmp_path: Path) -> None:
    """int(94 * (96 / 94)) is 95."""
    dataset = one_photo(tmp_path, np.full((94, 70, 3), 9, np.uint8), [(0, 0, 70, 94)])
    result = augment.gold_yolo_mosaic(
        dataset.load(0), AugmentContext(Script(0.7, *STILL), dataset, SPEC, 0, 0), probability=0.5
    )
    assert (result.image == 9).all(-1).any(1).all() and (result.image == 9).all(-1).any(
        0
    ).sum() == 72
    ratio = 96 / 95  # of the second fitting, without rounding, for the box
    left = (96 - 72) / 2
    np.testing.assert_allclose(result.boxes, [[left, 0, left + 71 * ratio, 96 - 1e-3]], atol=1e-4)


def test_mixup_blends_two_mosaics_with_a_beta_share(photos: Dataset) -> None:
    first, second = (
        ([3, 3, 3], [0, 1, 2, 3], 96, 96, *STILL),
        ([1, 1, 1], [0, 1, 2, 3], 96, 96, *STILL),
    )
    script = Script(0.0, *first, 0.05, 1, *second, 0.32)
    result = run(photos, script, 3, mixup_probability=0.1)
    assert not script.numbers and script.asked[-1] == (32, 32)
    # 0.32 * 220 + 0.68 * 80 cut; both cover the upper left corner
    assert result.image[0, 0].tolist() == [124] * 3
    assert result.labels.tolist() == [3] * 4 + [1] * 4
    assert run(
        photos, Script(0.0, *first, 0.05, 1, *second, 0.32), 3, mixup_probability=0.1, max_boxes=5
    ).labels.tolist() == [3] * 4 + [1]


@pytest.mark.parametrize("seed", range(6))
def test_boxes_follow_the_pixels(seed: int) -> None:
    sample = replace(blocks(), ignore=np.zeros(3, bool))
    context = AugmentContext(np.random.default_rng(seed), None, SPEC, 0, 0)
    result = augment.gold_yolo_mosaic(
        sample, context, probability=0.0, scale=0.3, translate=0.05, degrees=0.0
    )
    assert len(result.boxes) == 3
    assert_boxes_follow(result, 1.5)


def test_the_movement_is_a_product_of_simple_ones() -> None:
    movement = Movement(20.0, 0.8, (4.0, -3.0), (0.45, 0.58))
    back, turn, skew, there = (np.eye(3) for _ in range(4))
    back[:2, 2] = -50 / 2, -30 / 2
    turn[:2] = cv2.getRotationMatrix2D((0, 0), 20.0, 0.8)
    skew[0, 1], skew[1, 0] = np.tan(np.deg2rad(4.0)), np.tan(np.deg2rad(-3.0))
    there[:2, 2] = 0.45 * 70, 0.58 * 60
    np.testing.assert_allclose(
        movement.matrix((30, 50), (60, 70)), (there @ skew @ turn @ back)[:2], atol=1e-12
    )


def test_what_is_left_of_a_box_decides() -> None:
    boxes = np.array(
        [
            [0, 0, 40, 40],
            [0, 0, 91, 4.4],
            [0, 0, 2.1, 30],
            [-60, 10, 6, 30],
            [-50, 10, 6, 30],
            [20, 20, 22, 40],
            [20, 20, 22.2, 40],
        ],
        np.float32,
    )
    sample = made_sample(np.zeros((96, 96, 3), np.uint8), boxes)
    context = AugmentContext(np.random.default_rng(0), None, SPEC, 0, 0)
    result = move(sample, Movement(0.0, 1.0, (0.0, 0.0), (0.5, 0.5)), context)
    # 1 is 91 / 4.4 = 20.7 times as long as wide; 6 / 66 of 3 are visible; 5 is no wider than
    # 2 pixels
    assert result.labels.tolist() == [0, 2, 4, 6]
    half = move(sample, Movement(0.0, 0.5, (0.0, 0.0), (0.25, 0.25)), context)
    assert half.labels.tolist() == [0, 4]


def test_pipelines_keep_the_cap_and_fill_the_input(shapes: Dataset) -> None:
    spec = InputSpec(size=(96, 96), color="rgb", rounding="down_whole", border=4)
    steps = [
        {"name": "gold_yolo_mosaic", "scale": 0.9, "mixup_probability": 1.0, "max_boxes": 5},
        "hsv",
        "horizontal_flip",
    ]
    pipeline = build_pipeline(steps, spec, shapes)
    assert pipeline.max_boxes == 5
    assert build_pipeline(["gold_yolo_mosaic"], spec, shapes).max_boxes == min(
        8 * shapes.max_boxes(), 160
    )
    for index in range(6):
        prepared = pipeline(index, size=(128, 128) if index % 2 else None)
        side = 128 if index % 2 else 96
        assert prepared.image.shape == (side, side, 3) and len(prepared.boxes) <= 5
        assert (prepared.placement.scale_x, prepared.placement.pad_x, prepared.placement.pad_y) == (
            1,
            0,
            0,
        )
        assert (prepared.boxes >= 0).all() and (prepared.boxes <= side).all()
    assert build_pipeline([], spec, shapes).input_spec.border == 4  # evaluation keeps it


def test_a_data_set_without_boxes_has_mosaics(tmp_path: Path) -> None:
    dataset = one_photo(tmp_path, np.full((40, 50, 3), 9, np.uint8))
    steps = [{"name": "gold_yolo_mosaic", "mixup_probability": 1.0}]
    pipeline = build_pipeline(steps, SPEC, dataset)
    assert pipeline(0).boxes.shape == (0, 4)
