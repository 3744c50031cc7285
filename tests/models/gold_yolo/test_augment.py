"""Gold-YOLO's augmentation: pictures and boxes move together, by the rules of the original
written down again here.
"""

from collections import deque
from pathlib import Path

import cv2
import numpy as np
import pytest

from mindyolo_ext.data.dataset import Collector, Dataset, Sample
from mindyolo_ext.data.image_file import write_image
from mindyolo_ext.data.transform_registry import AugmentContext
from mindyolo_ext.data.transforms import build_pipeline
from mindyolo_ext.input_spec import InputSpec
from mindyolo_ext.models.gold_yolo import augment

SPEC = InputSpec(size=(96, 96), color="rgb")
LEVELS = (40, 80, 160, 220)


class Script:
    """A random generator that hands out given numbers and notes the ranges it was asked for."""

    def __init__(self, *numbers: object):
        self.numbers, self.asked = deque(numbers), []

    def random(self) -> float:
        return self.numbers.popleft()

    def uniform(self, low: float, high: float, size: int | None = None) -> float | np.ndarray:
        self.asked.append((round(low, 6), round(high, 6)))
        return self.numbers.popleft() if size is None else np.array(self.numbers.popleft())

    def integers(self, high: int, size: int | None = None) -> int | np.ndarray:  # noqa: ARG002
        return self.numbers.popleft()

    def permutation(self, count: int) -> np.ndarray:
        assert sorted(self.numbers[0]) == list(range(count))
        return np.array(self.numbers.popleft())

    def beta(self, a: float, b: float) -> float:
        self.asked.append((a, b))
        return self.numbers.popleft()


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Four plain pictures of different shape, each with one box all over it and a crowd."""
    folder = tmp_path_factory.mktemp("photos")
    collector = Collector("levels", list("abcd"), relative=False, tolerance=0)
    for label, (height, width) in enumerate(((64, 96), (96, 96), (120, 60), (31, 50))):
        write_image(folder / f"{label}.png", np.full((height, width, 3), LEVELS[label], np.uint8))
        collector.add(
            str(folder / f"{label}.png"),
            label + 1,
            (height, width),
            ignore=[False, True],
            where=["", ""],
            boxes=[(0, 0, width, height), (1, 1, width - 1, height - 1)],
            labels=[label, label],
        )
    return collector.finish()


def run(photos: Dataset, rng: object, index: int = 0, **keywords: object) -> Sample:
    return augment.gold_yolo_mosaic(
        photos.load(index), AugmentContext(rng, photos, SPEC, 0, index), **keywords
    )


STILL = (0.0, 1.0, (0.0, 0.0), (0.5, 0.5))  # angle, factor, shear, target: the middle of the canvas


def test_a_still_mosaic_by_hand(photos: Dataset) -> None:
    """Centre (80, 100) on the canvas of 192 x 192, of which the inner 96 x 96 from (48, 48) are
    seen.
    """
    script = Script(0.0, [1, 2, 3], [3, 0, 2, 1], 100.4, 80.9, *STILL, 0.9)
    result = run(photos, script, mixup_probability=0.5)
    assert not script.numbers
    assert script.asked == [(48, 144), (48, 144), (0, 0), (0.5, 1.5), (0, 0), (0.4, 0.6)]
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
    """31 x 50 -> 59 x 96: an odd rest of 37 rows, 18 above; the box lies in the true middle."""
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
    write_image(tmp_path / "a.png", np.full((94, 70, 3), 9, np.uint8))
    collector = Collector("one", ["a"], relative=False, tolerance=0)
    collector.add(
        str(tmp_path / "a.png"),
        1,
        (94, 70),
        boxes=[(0, 0, 70, 94)],
        labels=[0],
        ignore=[False],
        where=[""],
    )
    dataset = collector.finish()
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
    """A blue, a green and a red block in one photo: where they are found afterwards, their boxes
    are.
    """
    boxes = np.array([[6, 10, 30, 34], [50, 8, 80, 30], [40, 50, 60, 70]], np.float32)
    image = np.zeros((80, 90, 3), np.uint8)
    for row, (x1, y1, x2, y2) in enumerate(boxes.astype(int)):
        image[y1:y2, x1:x2, row] = 255
    sample = Sample(image, boxes, np.arange(3), np.zeros(3, bool), 1, "a.png")
    context = AugmentContext(np.random.default_rng(seed), None, SPEC, 0, 0)
    result = augment.gold_yolo_mosaic(
        sample, context, probability=0.0, scale=0.3, translate=0.05, degrees=0.0
    )
    assert len(result.boxes) == 3
    for box, label in zip(result.boxes, result.labels, strict=True):
        hit = result.image[:, :, label] > 127  # the padding has 114
        rows, columns = np.flatnonzero(hit.any(1)), np.flatnonzero(hit.any(0))
        np.testing.assert_allclose(
            box, [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], atol=1.5
        )


def test_the_movement_is_a_product_of_simple_ones() -> None:
    movement = augment.Movement(20.0, 0.8, (4.0, -3.0), (0.45, 0.58))
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
    sample = Sample(
        np.zeros((96, 96, 3), np.uint8), boxes, np.arange(7), np.zeros(7, bool), 1, "a.png"
    )
    context = AugmentContext(np.random.default_rng(0), None, SPEC, 0, 0)
    result = augment.move(sample, augment.Movement(0.0, 1.0, (0.0, 0.0), (0.5, 0.5)), context)
    # 1 is 91 / 4.4 = 20.7 times as long as wide; of 3 a share of 6 / 66 is seen; 5 is no wider than
    # 2 pixels
    assert result.labels.tolist() == [0, 2, 4, 6]
    half = augment.move(sample, augment.Movement(0.0, 0.5, (0.0, 0.0), (0.25, 0.25)), context)
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
        assert prepared.sample.image.shape == (side, side, 3) and len(prepared.sample.boxes) <= 5
        assert (prepared.placement.scale_x, prepared.placement.pad_x, prepared.placement.pad_y) == (
            1,
            0,
            0,
        )
        assert (prepared.sample.boxes >= 0).all() and (prepared.sample.boxes <= side).all()
    assert build_pipeline([], spec, shapes).input_spec.border == 4  # evaluation keeps it


def test_a_data_set_without_boxes_has_mosaics(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", np.full((40, 50, 3), 9, np.uint8))
    collector = Collector("empty", ["a"], relative=False, tolerance=0)
    collector.add(str(tmp_path / "a.png"), 1, (40, 50), boxes=[], labels=[], ignore=[], where=[])
    pipeline = build_pipeline(
        [{"name": "gold_yolo_mosaic", "mixup_probability": 1.0}], SPEC, collector.finish()
    )
    assert pipeline(0).sample.boxes.shape == (0, 4)
