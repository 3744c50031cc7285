"""Sheets of training images."""

from dataclasses import replace

import cv2
import numpy as np
import pytest

from mindyolo_ext.data.types import Batch
from mindyolo_ext.input_spec import InputSpec
from mindyolo_ext.visual.batch import draw_batch, image_of_tensor
from mindyolo_ext.visual.colors import class_color

SPECS = [
    InputSpec(size=(64, 96)),
    InputSpec(size=(64, 96), color="rgb", scale=1.0),
    InputSpec(size=(64, 96), color="rgb", mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)),
]


def batch_of(spec, image, count, valid):
    tensor, placement = spec.prepare(image)
    targets, mask = np.zeros((count, 3, 5), np.float32), np.zeros((count, 3), np.float32)
    targets[:valid, 0], mask[:valid, 0] = [1, 0.5, 0.5, 0.5, 0.5], 1
    targets[:, 1] = [2, 0.5, 0.5, 1, 1]  # padding: class 2 must not show
    return Batch(
        np.stack([tensor] * count),
        targets,
        mask,
        np.arange(count),
        valid,
        (placement,) * valid,
        ("folder/photo.jpg",) * valid,
        tuple(range(valid)),
    )


@pytest.mark.parametrize("spec", SPECS)
def test_a_network_input_becomes_the_picture_again(spec):
    image = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    np.testing.assert_array_equal(image_of_tensor(spec.to_tensor(image), spec), image)


@pytest.mark.parametrize("spec", SPECS)
def test_a_sheet_of_bytes_is_that_of_floats(spec):
    image = np.random.default_rng(1).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    floats = batch_of(spec, image, 3, 2)
    as_bytes = replace(floats, images=np.stack([image] * 3))
    wanted = draw_batch(floats, spec, ["a", "b", "c"])
    np.testing.assert_array_equal(draw_batch(as_bytes, spec, ["a", "b", "c"]), wanted)


def test_a_sheet_shows_each_picture_with_its_boxes(tmp_path):
    image = np.full((64, 96, 3), 50, np.uint8)
    batch = batch_of(SPECS[0], image, 4, 3)
    sheet = draw_batch(batch, SPECS[0], ["a", "b", "c"], tmp_path / "sheet.png")
    np.testing.assert_array_equal(cv2.imread(str(tmp_path / "sheet.png")), sheet)
    column = (sheet == class_color(1)).all(axis=2)
    rows, columns = column.shape[0] // 2, column.shape[1] // 2
    filled = [
        column[:rows, :columns],
        column[:rows, columns:],
        column[rows:, :columns],
        column[rows:, columns:],
    ]
    # the fourth is padding
    assert [part.sum() > 100 for part in filled] == [True, True, True, False]
    assert not (sheet == class_color(2)).all(axis=2).any()
    assert draw_batch(batch, SPECS[0], ["a", "b", "c"], max_images=1).shape[0] < rows + 20


def test_a_sheet_of_large_pictures_stays_handy():
    spec = InputSpec(size=(1280, 1280))
    sheet = draw_batch(
        batch_of(spec, np.zeros((1280, 1280, 3), np.uint8), 4, 4), spec, ["a", "b", "c"]
    )
    assert max(sheet.shape) < 2600


def test_nothing_to_draw_is_refused():
    with pytest.raises(ValueError, match="no images to draw"):
        draw_batch(
            batch_of(SPECS[0], np.zeros((64, 96, 3), np.uint8), 2, 0), SPECS[0], ["a", "b", "c"]
        )
