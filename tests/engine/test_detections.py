"""The detections of an image, in all forms that they convert to."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from mindyolo_ext.data.image_file import read_image
from mindyolo_ext.engine.detections import Detections
from mindyolo_ext.errors import MissingPackageError, UsageError

HEIGHT, WIDTH = 40, 80
IMAGE = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)


@pytest.fixture
def found() -> Detections:
    boxes = np.array([[8, 10, 40, 30], [70.5, 20, 80, 40]], np.float32)
    scores = np.array([0.75, 0.5], np.float32)
    return Detections(IMAGE, boxes, scores, np.array([1, 0]), ["cat", "dog"])


@pytest.fixture
def nothing() -> Detections:
    empty = np.zeros((0, 4), np.float32)
    return Detections(IMAGE, empty, empty[:, 0], np.zeros(0, np.int64), ["cat", "dog"])


def test_rows(found: Detections, nothing: Detections):
    rows = [[8, 10, 40, 30, 0.75, 1], [70.5, 20, 80, 40, 0.5, 0]]
    np.testing.assert_array_equal(found.rows, np.array(rows, np.float32))
    assert found.names == ["dog", "cat"] and len(found) == 2
    assert nothing.rows.shape == (0, 6) and len(nothing) == 0 and nothing.names == []


def test_json(found: Detections, nothing: Detections):
    assert json.loads(found.to_json()) == [
        {"name": "dog", "class": 1, "score": 0.75, "box": [8.0, 10.0, 40.0, 30.0]},
        {"name": "cat", "class": 0, "score": 0.5, "box": [70.5, 20.0, 80.0, 40.0]},
    ]
    assert nothing.to_json() == "[]"
    found.scores[0] = np.nan
    with pytest.raises(ValueError, match="not JSON compliant"):
        found.to_json()


def test_coco(found: Detections):
    assert found.to_coco(7, [18, 17])[0] == {
        "image_id": 7,
        "category_id": 17,
        "bbox": [8.0, 10.0, 32.0, 20.0],
        "score": 0.75,
    }
    assert [(row["image_id"], row["category_id"]) for row in found.to_coco()] == [(0, 1), (0, 0)]
    with pytest.raises(ValueError, match="but 1 category ids"):
        found.to_coco(7, [18])


def test_yolo(found: Detections, nothing: Detections):
    assert found.to_yolo().splitlines()[0] == "1 0.3 0.5 0.4 0.5 0.75"
    assert found.to_yolo(scores=False).splitlines()[0] == "1 0.3 0.5 0.4 0.5"
    assert nothing.to_yolo() == ""


def test_crops(found: Detections):
    first, second = found.crops()
    np.testing.assert_array_equal(first, IMAGE[10:30, 8:40])
    np.testing.assert_array_equal(second, IMAGE[20:40, 70:80])
    first[:] = 0
    assert IMAGE[10:30, 8:40].any()


def test_crop_of_a_box_without_area_has_a_pixel():
    boxes = np.array([[80, 40, 80, 40], [3, 3, 3, 3]], np.float32)
    found = Detections(IMAGE, boxes, np.ones(2, np.float32), np.zeros(2, np.int64), ["cat"])
    assert [crop.shape for crop in found.crops()] == [(1, 1, 3)] * 2


def test_picture(found: Detections, tmp_path: Path):
    drawn = found.plot()
    assert drawn.shape == IMAGE.shape and (drawn != IMAGE).any()
    found.save(tmp_path / "new" / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "new" / "a.png"), drawn)
    with pytest.raises(UsageError, match="use .png or .jpg"):
        found.save(tmp_path / "a.xyz")


def test_supervision(found: Detections, nothing: Detections):
    pytest.importorskip("supervision")
    theirs = found.to_supervision()
    np.testing.assert_array_equal(theirs.xyxy, found.boxes)
    assert theirs.class_id.tolist() == [1, 0]
    assert theirs.confidence.tolist() == [0.75, 0.5]
    assert theirs.data["class_name"].tolist() == ["dog", "cat"]
    assert theirs[theirs.confidence > 0.6].data["class_name"].tolist() == ["dog"]
    assert len(nothing.to_supervision()) == 0


def test_supervision_is_not_installed(found: Detections, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(MissingPackageError, match="pip install supervision"):
        found.to_supervision()
