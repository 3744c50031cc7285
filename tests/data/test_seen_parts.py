"""Images that a mosaic does not show are not decoded, and the result stays the same."""

from pathlib import Path

import numpy as np
import pytest

from mindyolo_ext.data.augment import canvas
from mindyolo_ext.data.dataset import Dataset
from mindyolo_ext.data.pipeline import Pipeline, build_pipeline
from mindyolo_ext.data.types import Sample
from mindyolo_ext.input_spec import InputSpec
from mindyolo_ext.models.registry import load_augmentations

SPEC = InputSpec(size=(64, 96), resize="letterbox")
RECIPES = {
    "yolox": [
        {"name": "yolox_mosaic", "scale": [0.1, 2.0], "mixup_probability": 1.0},
        "yolox_hsv_flip",
    ],
    "gold_yolo": [{"name": "gold_yolo_mosaic", "mixup_probability": 0.5}],
    "gold_yolo_turned": [
        {"name": "gold_yolo_mosaic", "scale": 0.9, "degrees": 45.0, "shear": 20.0}
    ],
    "dynamicdet": [{"name": "dynamicdet_mosaic", "nine_probability": 0.5}],
    "dynamicdet_tilted": [{"name": "dynamicdet_mosaic", "perspective": 0.001}],
}


@pytest.mark.parametrize("name", RECIPES)
def test_only_what_is_seen_is_decoded_and_the_result_is_the_same(
    shapes: Dataset, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    load_augmentations()
    pipeline = build_pipeline(RECIPES[name], SPEC, shapes, seed=4)
    decoded = []
    load = shapes.load
    monkeypatch.setattr(shapes, "load", lambda index: decoded.append(index) or load(index))

    def run(pipeline: Pipeline) -> tuple[list[Sample], int]:
        decoded.clear()
        found = [pipeline(index, epoch) for epoch in range(3) for index in range(len(shapes))]
        return found, len(decoded)

    seen, few = run(pipeline)
    monkeypatch.setattr(canvas, "_window", lambda *_: None)
    everything, all_of_them = run(pipeline)
    assert few == all_of_them if name == "dynamicdet_tilted" else few < 0.97 * all_of_them
    for one, two in zip(seen, everything, strict=True):
        np.testing.assert_array_equal(one.image, two.image)
        np.testing.assert_array_equal(one.boxes, two.boxes)
        np.testing.assert_array_equal(one.labels, two.labels)


@pytest.mark.parametrize(
    ("corner", "seen"),
    [((0, 0), True), ((-30, 0), False), ((-24, 0), True), ((96, 60), True), ((104, 0), False)],
)
def test_a_margin_around_the_image_counts(corner: tuple[int, int], seen: bool) -> None:
    still = np.array([[1.0, 0, 0], [0, 1, 0]])
    assert canvas.is_seen(corner, (20, 20), still, (64, 96)) == seen


def test_a_turned_window_is_not_its_frame() -> None:
    turned = canvas.Movement(45.0, 1.0, (0.0, 0.0), (0.5, 0.5)).projection((200, 200), (100, 100))
    assert not canvas.is_seen((30, 30), (20, 20), turned, (100, 100))  # in the frame's corner
    assert canvas.is_seen((90, 30), (20, 20), turned, (100, 100))


def test_an_unseen_photo_has_the_size_and_boxes_of_the_photo(
    shapes: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = shapes.load(2)
    monkeypatch.setattr("mindyolo_ext.data.dataset.read_image", lambda _path: pytest.fail("read"))
    found = shapes.load_unseen(2)
    assert found.is_unseen and not whole.is_unseen
    assert (found.size, found.path, found.image_id) == (whole.size, whole.path, whole.image_id)
    np.testing.assert_array_equal(found.boxes, whole.boxes)
    assert Path(found.path).is_file()
